#!/usr/bin/env python3
"""Parts of a step on PyTorch: the twin of `w2svd bench attention|gemm|optimizer|elementwise`.

usage: kernels.py attention|gemm|optimizer|elementwise [--dtype fp32|bf16] [--threads N] [--repeats N]
                  [--lengths N…] [--head-widths N…]

bf16 tensors are stored as bf16 here; ours are fp32 and rounded inside. The last line is one JSON object
with the rows' names and sizes as ours.
"""

import argparse

import measuring

WIDTH, HIDDEN, HEADS, TOKENS = 384, 1536, 6, 1312
PARAMETERS = 42_904_512
# Tokens, input width, output width, as in Sources/Benchmarking/Kernels/ProductRows.swift.
PRODUCTS = [
    (1280, 384, 384), (1280, 384, 1536), (1280, 1536, 384), (1312, 1920, 384), (32, 384, 1536),
    (1, 384, 2304)]


def row(name, dtype, sizes, run, options, flop=None, byte_count=None):
    result = dict(measuring.time_kernel(run, options.repeats), name=name, dtype=dtype, sizes=sizes)
    if flop:
        result.update(flop=flop, gflop_per_s=flop / result["median_s"] / 1e9)
    if byte_count:
        result.update(bytes=byte_count, gb_per_s=byte_count / result["median_s"] / 1e9)
    return result


def attention(torch, options, dtype, type):
    attend = torch.nn.functional.scaled_dot_product_attention
    for head in options.head_widths:
        for length in options.lengths:
            shape = (1, max(1, WIDTH // head), length, head)
            query, key, value, seed = (torch.randn(shape).to(type) for _ in range(4))
            flop, sizes = 4 * length * length * shape[1] * head, {"tokens": length, "head": head}

            def forward():
                with torch.no_grad():
                    attend(query, key, value)

            leaves = [tensor.clone().requires_grad_() for tensor in (query, key, value)]

            def both():
                torch.autograd.grad(attend(*leaves), leaves, seed)

            yield row("attention forward", dtype, sizes, forward, options, flop)
            yield row("attention forward+backward", dtype, sizes, both, options, 3 * flop)


def gemm(torch, options, dtype, type):
    for rows, inner, outer in PRODUCTS:
        x, weight = torch.randn(rows, inner).to(type), torch.randn(outer, inner).to(type)
        gradient = torch.randn(rows, outer).to(type)
        dx, dw = torch.zeros(rows, inner).to(type), torch.zeros(outer, inner).to(type)
        y = torch.empty(rows, outer).to(type)
        flop, sizes = 2 * rows * inner * outer, {"rows": rows, "in": inner, "out": outer}
        yield row("gemm x Wᵀ", dtype, sizes, lambda: torch.mm(x, weight.T, out=y), options, flop)
        yield row("gemm dy W", dtype, sizes, lambda: dx.addmm_(gradient, weight), options, flop)
        yield row("gemm dyᵀ x", dtype, sizes, lambda: dw.addmm_(gradient.T, x), options, flop)


def optimizer(torch, options, dtype, type):
    # One flat tensor: the most favorable case for PyTorch too.
    for kind in ("fused", "foreach"):
        parameter = torch.nn.Parameter(torch.randn(PARAMETERS) * 0.02)
        parameter.grad = torch.randn(PARAMETERS) * 0.001
        average = parameter.detach().clone()
        adamw = torch.optim.AdamW([parameter], lr=1e-4, **{kind: True})

        def with_average():
            adamw.step()
            average.lerp_(parameter.detach(), 0.001)

        suffix, sizes = "" if kind == "fused" else f" ({kind})", {"elements": PARAMETERS}
        yield row("AdamW" + suffix, dtype, sizes, adamw.step, options, byte_count=28 * PARAMETERS)
        yield row(
            "AdamW with EMA" + suffix, dtype, sizes, with_average, options,
            byte_count=36 * PARAMETERS)


def elementwise(torch, options, dtype, type):
    functional = torch.nn.functional
    x, h, seed = (torch.randn(1, TOKENS, WIDTH).to(type) for _ in range(3))
    wide, wide_seed = (torch.randn(1, TOKENS, HIDDEN).to(type) for _ in range(2))
    scale, shift = torch.randn(1, 1, WIDTH).to(type), torch.randn(1, 1, WIDTH).to(type)
    gain = torch.randn(WIDTH // HEADS).to(type)
    angles = torch.rand(1, TOKENS, 1, WIDTH // HEADS).to(type)
    cosines, sines = angles.cos(), angles.sin()
    for vector in (scale, shift, gain):
        vector.requires_grad_()

    def modulate(x):
        return functional.layer_norm(x, (WIDTH,), eps=1e-6) * (1 + scale) + shift

    def gate(h):
        return x + scale * h

    def head_norm(x):
        heads = x.unflatten(-1, (HEADS, -1))
        heads = functional.rms_norm(heads, (WIDTH // HEADS,), gain, 1e-6)
        even, odd = heads.unflatten(-1, (-1, 2)).unbind(-1)
        return heads * cosines + torch.stack([-odd, even], -1).flatten(3) * sines

    def gelu(x):
        return functional.gelu(x, approximate="tanh")

    cases = [
        ("norm+modulate", modulate, x, seed, 8, [scale, shift]),
        ("gate+residual", gate, h, seed, 12, [scale]),
        ("QK-norm+RoPE", head_norm, x, seed.unflatten(-1, (HEADS, -1)), 8, [gain]),
        ("GELU", gelu, wide, wide_seed, 8, [])]
    for name, function, tensor, gradient, width, vectors in cases:
        count, sizes = tensor.numel(), {"rows": TOKENS, "width": tensor.shape[-1]}

        def forward():
            with torch.no_grad():
                function(tensor)

        leaf = tensor.clone().requires_grad_()
        output = function(leaf)

        def backward():
            torch.autograd.grad(output, [leaf, *vectors], gradient, retain_graph=True)

        yield row(name, dtype, sizes, forward, options, byte_count=width * count)
        yield row(name + " backward", dtype, sizes, backward, options, byte_count=16 * count)


BENCHMARKS = dict(attention=attention, gemm=gemm, optimizer=optimizer, elementwise=elementwise)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("benchmark", choices=BENCHMARKS)
    parser.add_argument("--dtype", choices=["fp32", "bf16"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1024, 2048, 4096, 8192])
    parser.add_argument("--head-widths", type=int, nargs="+", default=[64, 128])
    options = parser.parse_args()
    torch = measuring.prepare(options.threads)
    types = dict(fp32=torch.float32, bf16=torch.bfloat16)
    both = options.benchmark in ("attention", "gemm")
    chosen = [options.dtype] if options.dtype else (list(types) if both else ["fp32"])
    rows = [
        result for dtype in chosen
        for result in BENCHMARKS[options.benchmark](torch, options, dtype, types[dtype])]
    measuring.report(dict(
        benchmark=options.benchmark, implementation="pytorch", rows=rows,
        machine=measuring.machine(options.threads), peak_rss_bytes=measuring.peak_rss_bytes()))


if __name__ == "__main__":
    main()
