"""Owns Ray's side: calls to one actor in another process, and 64 MiB tensors handed over to it.

All three measures share one start of Ray, which costs seconds. Tensors go through Ray's object store, that is shared
memory; nothing is tuned but what would only cost time (the dashboard).
"""
import json
import os
import resource
import sys
import time

os.environ.setdefault("RAY_DEDUP_LOGS", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
import numpy
import ray

WARM_UP_SHARE = 0.4
ASK_WARM_UP_SHARE = 2
WINDOW = 100
TENSOR_BYTES = 64 * 2**20
TENSORS_UNDER_WAY = 2


@ray.remote(num_cpus=0)
class Sink:
    def add(self, i):
        return i + 1

    def tensor(self, x):
        return float(x[0] + x[-1])


def per_second(seconds, go, operations, warm_up_share=WARM_UP_SHARE):
    end = time.perf_counter() + seconds * warm_up_share
    while time.perf_counter() < end:
        go()
    start = time.perf_counter()
    done = 0
    while time.perf_counter() - start < seconds:
        go()
        done += operations
    return done / (time.perf_counter() - start)


def main():
    seconds = float(sys.argv[sys.argv.index("--seconds") + 1]) if "--seconds" in sys.argv else 1.0
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error",
             object_store_memory=512 * 2**20)
    sink = Sink.remote()
    assert ray.get(sink.add.remote(1)) == 2

    samples = []
    end = time.perf_counter() + seconds * ASK_WARM_UP_SHARE
    while time.perf_counter() < end:
        ray.get(sink.add.remote(1))
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        ray.get(sink.add.remote(1))
        samples.append((time.perf_counter() - start) * 1e6)
    samples.sort()

    window = per_second(seconds, lambda: ray.get([sink.add.remote(i) for i in range(WINDOW)]), WINDOW, ASK_WARM_UP_SHARE)
    x = numpy.full(TENSOR_BYTES // 4, 1.5, dtype=numpy.float32)

    def tensors():
        for answer in ray.get([sink.tensor.remote(x) for _ in range(TENSORS_UNDER_WAY)]):
            assert answer == 3.0

    tensor = per_second(seconds, tensors, TENSORS_UNDER_WAY * TENSOR_BYTES / 1e9)
    print(json.dumps({
        "values": {"askP50Us": samples[len(samples) // 2], "askPerSecond": len(samples) / seconds,
                   "windowPerSecond": window, "gigabytesPerSecond": tensor},
        "version": ray.__version__,
    }))


if __name__ == "__main__":
    main()
