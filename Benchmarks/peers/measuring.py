"""What both peer scripts share: threads before torch is imported, timing, memory, the closing JSON line.

The keys are those of `w2svd bench … --json`.
"""

import json
import os
import platform
import resource
import statistics
import sys
import time


def prepare(threads):
    """Sets the threads of this process; call before torch is imported."""
    if "torch" in sys.modules:
        raise RuntimeError("torch was imported before its threads were set")
    # Kernels that somebody chose for another program, and thread counts of the shell.
    for name in list(os.environ):
        if name.startswith(("OPENBLAS_", "MKL_", "OMP_", "GOMP_", "KMP_")):
            del os.environ[name]
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    return torch


def peak_rss_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def page_faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def timing(seconds):
    """The keys of a timing; the spread is between the 10th and the 90th percentile."""
    ordered = sorted(seconds)
    median = statistics.median(ordered)
    low, high = (ordered[round(share * (len(ordered) - 1))] for share in (0.1, 0.9))
    return {
        "median_s": median, "min_s": ordered[0], "max_s": ordered[-1],
        "spread": (high - low) / median if median else 0.0, "repeats": len(ordered),
    }


def time_runs(run, repeats, warm_up=2):
    for _ in range(warm_up):
        run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return timing(seconds)


def time_kernel(run, repeats):
    """At least `repeats` runs and 0.2 s, at most a thousand runs."""
    run()
    seconds, start = [], time.perf_counter()
    while len(seconds) < repeats or (len(seconds) < 1000 and time.perf_counter() - start < 0.2):
        before = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - before)
    return timing(seconds)


def machine(threads):
    import torch

    cpu = platform.processor() or "unknown"
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            cpu = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    for name in ("diffusers", "peft"):
        if name in sys.modules:
            versions[name] = sys.modules[name].__version__
    return {
        "cpu": cpu, "cores": len(os.sched_getaffinity(0)), "threads": threads, "versions": versions,
    }


def report(result):
    print(json.dumps(result, sort_keys=True))
