// The look of the report, light and dark by the reader's preference.

enum ReportStyle {
  static let css = """
    :root { color-scheme: light dark; --ink: #1c2024; --dim: #60646c; --page: #fcfcfd; --card: #fff;
      --line: #e0e3e8; --best: #0b6e3f; --s0: #2563c9; --s1: #d1620b; --s2: #16825d; --s3: #a3348f;
      --s4: #a68200; --s5: #5a5f6b; }
    @media (prefers-color-scheme: dark) { :root { --ink: #e7e9ec; --dim: #9aa0aa; --page: #111316;
      --card: #191c20; --line: #2c3138; --best: #4cc38a; --s0: #6ea8fe; --s1: #f59e4b; --s2: #3ecf9b;
      --s3: #e07bd0; --s4: #e2c044; --s5: #a0a6b3; } }
    * { box-sizing: border-box; }
    body { margin: 0 auto; max-width: 74rem; padding: 2rem 1.25rem 4rem; background: var(--page);
      color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
    h1 { font-size: 1.7rem; margin: 0; line-height: 1.25; }
    h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; padding-bottom: .3rem;
      border-bottom: 1px solid var(--line); }
    h3 { font-size: 1rem; margin: 1.25rem 0 .4rem; }
    p { margin: .4rem 0; max-width: 60rem; }
    .sub, .note, figcaption small { color: var(--dim); }
    .note { font-size: .85rem; margin-top: .8rem; }
    .scroll { overflow-x: auto; }
    table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
    th, td { padding: .35rem .8rem; text-align: right; border-bottom: 1px solid var(--line);
      white-space: nowrap; }
    th:first-child { text-align: left; padding-left: 0; }
    thead th { color: var(--dim); font-weight: 500; vertical-align: bottom; }
    tbody th { font-weight: 500; }
    tr.total > * { font-weight: 600; border-bottom: none; }
    td.best { color: var(--best); font-weight: 700; }
    table.facts td { text-align: left; white-space: normal; }
    .samples { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem; }
    figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
      padding: .75rem; }
    figure.wide { grid-column: 1 / -1; }
    .sample video, .sample img { display: block; width: 100%; image-rendering: pixelated; }
    .sample.wide video { width: 15rem; margin-bottom: .5rem; }
    figcaption { margin-top: .4rem; font-size: .9rem; }
    .charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(30rem, 100%), 1fr));
      gap: 1rem; }
    .chart figcaption { margin: 0 0 .4rem; font-weight: 600; display: flex; flex-wrap: wrap; gap: .25rem 1rem; }
    .legend { font-weight: 400; display: flex; flex-wrap: wrap; gap: .25rem .9rem; }
    .legend i { display: inline-block; width: .8em; height: .2em; margin-right: .35em;
      vertical-align: middle; background: currentColor; }
    svg { display: block; width: 100%; height: auto; }
    svg text { font-size: 12px; fill: var(--dim); }
    .grid { stroke: var(--line); }
    polyline { fill: none; stroke: currentColor; stroke-linejoin: round; }
    .raw { stroke-width: 1; opacity: .35; }
    .smooth { stroke-width: 2; }
    .s0 { color: var(--s0); } .s1 { color: var(--s1); } .s2 { color: var(--s2); }
    .s3 { color: var(--s3); } .s4 { color: var(--s4); } .s5 { color: var(--s5); }
    details { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .9rem; }
    summary { cursor: pointer; }
    pre { overflow-x: auto; font-size: .85rem; line-height: 1.4; margin: .6rem 0 0; }
    """
}
