# Owns the PyTorch side of the kernel lines: the fastest form that PyTorch offers of each case, outputs kept where its
# interface allows it, gradients off.
import json
import statistics
import sys
import time

import torch

torch.set_grad_enabled(False)
torch.manual_seed(1)


def products(request):
    m, n, k = request["m"], request["n"], request["k"]
    a = torch.rand(k, m).t() if request.get("transA") else torch.rand(m, k)
    b = torch.rand(n, k).t() if request.get("transB") else torch.rand(k, n)
    out = torch.empty(m, n)
    return lambda: torch.mm(a, b, out=out)


def int8(request):
    m, n, k = request["m"], request["n"], request["k"]
    a = torch.randint(-128, 128, (m, k), dtype=torch.int8)
    b = torch.randint(-128, 128, (n, k), dtype=torch.int8).t()
    out = torch.empty(m, n, dtype=torch.int32)
    return lambda: torch._int_mm(a, b, out=out)


def convolutions(request):
    n, h, c, oc, kernel, pad = (request[key] for key in ("n", "h", "c", "oc", "kernel", "pad"))
    stride = request.get("stride", 1)
    last = torch.channels_last
    x = torch.rand(n, c, h, h).to(memory_format=last)
    w = torch.rand(oc, c, kernel, kernel).to(memory_format=last)
    y = torch.conv2d(x, w, None, stride, pad)
    if request["op"] == "conv":
        return lambda: torch.conv2d(x, w, None, stride, pad)
    mask = [request["op"] == "conv-dx", request["op"] == "conv-dw", False]
    ones = [1, 1]
    return lambda: torch.ops.aten.convolution_backward(
        y, x, w, None, [stride, stride], [pad, pad], ones, False, [0, 0], 1, mask
    )


def adamw(request):
    p = torch.rand(request["n"])
    p.grad = torch.rand(request["n"])
    optimizer = torch.optim.AdamW([p], lr=1e-3, weight_decay=0.01, fused=True)
    return optimizer.step


CASES = {
    "sgemm": products,
    "int8": int8,
    "conv": convolutions,
    "conv-dx": convolutions,
    "conv-dw": convolutions,
    "adamw": adamw,
}


def measure(run, seconds):
    """Median seconds a run, of batches of at least a millisecond: as side.h does it."""
    run()
    start = time.perf_counter()
    run()
    batch = max(1, int(1e-3 / max(1e-9, time.perf_counter() - start)))
    times = []
    begin = time.perf_counter()
    while not times or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        for _ in range(batch):
            run()
        times.append((time.perf_counter() - start) / batch)
    return statistics.median(times)


def serve(version, cases, prepare=lambda request: None):
    """One case a line in, one figure a line out; a case is prepared once and kept until another comes."""
    print(json.dumps({"version": version}), flush=True)
    text = run = None
    for line in sys.stdin:
        request = json.loads(line)
        prepare(request)
        try:
            if line != text:
                run, text = cases[request["op"]](request), line
            answer = {"seconds": measure(run, request["seconds"])}
        except KeyError:
            answer = {"reason": "no such operation here"}
        except RuntimeError as error:
            answer = {"reason": str(error).splitlines()[0][:120]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve(torch.__version__, CASES, lambda request: torch.set_num_threads(request["threads"]))
