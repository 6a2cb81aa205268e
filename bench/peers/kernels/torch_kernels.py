# Owns the PyTorch side of the kernel lines: the fastest form that PyTorch offers of each case, outputs kept where its
# interface allows it, gradients off.
import json
import statistics
import sys
import time

import torch
import torch.nn.functional as F

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


def linear_gelu(request):
    m, n, k = request["m"], request["n"], request["k"]
    x, w, bias = torch.rand(m, k), torch.rand(k, n), torch.rand(n)
    out, y = torch.empty(m, n), torch.empty(m, n)
    return lambda: torch._C._nn.gelu(torch.addmm(bias, x, w, out=out), approximate="tanh", out=y)


def heads_of(request):
    shape = [request[key] for key in ("batch", "heads", "length", "size")]
    return [torch.rand(shape) for _ in range(3)]


def attention(request):
    q, k, v = heads_of(request)
    return lambda: F.scaled_dot_product_attention(q, k, v, is_causal=bool(request["causal"]))


def attention_grad(request):
    with torch.enable_grad():
        leaves = [x.requires_grad_() for x in heads_of(request)]
        out = F.scaled_dot_product_attention(*leaves, is_causal=bool(request["causal"]))
    dout = torch.rand_like(out)
    return lambda: torch.autograd.grad(out, leaves, dout, retain_graph=True)


def rows_of(request):
    return torch.rand(request["rows"], request["columns"])


def layernorm(request):
    x, gamma, beta = rows_of(request), torch.rand(request["columns"]), torch.rand(request["columns"])
    return lambda: torch.native_layer_norm(x, gamma.shape, gamma, beta, 1e-5)


def layernorm_grad(request):
    x, dy = rows_of(request), rows_of(request)
    gamma, beta = torch.rand(request["columns"]), torch.rand(request["columns"])
    _, mean, rstd = torch.native_layer_norm(x, gamma.shape, gamma, beta, 1e-5)
    mask = [True, True, True]
    return lambda: torch.ops.aten.native_layer_norm_backward(dy, x, gamma.shape, mean, rstd, gamma, beta, mask)


def rmsnorm(request):
    x, gamma = rows_of(request), torch.rand(request["columns"])
    return lambda: F.rms_norm(x, gamma.shape, gamma, 1e-5)


def softmax(request):
    x = rows_of(request)
    out = torch.empty_like(x)
    return lambda: torch.softmax(x, 1, out=out)


def gelu(request):
    x = torch.rand(request["n"])
    out = torch.empty_like(x)
    form = "tanh" if request.get("tanh") else "none"
    return lambda: torch._C._nn.gelu(x, approximate=form, out=out)


def embedding(request):
    table = torch.rand(request["vocabulary"], request["columns"])
    ids = torch.randint(0, request["vocabulary"], (request["rows"],))
    out = torch.empty(request["rows"], request["columns"])
    return lambda: torch.index_select(table, 0, ids, out=out)


def softmax_ce(request):
    logits = rows_of(request).requires_grad_()
    labels = torch.randint(0, request["columns"], (request["rows"],))

    def step():
        with torch.enable_grad():
            return torch.autograd.grad(F.cross_entropy(logits, labels), logits)

    return step


CASES = {
    "linear-gelu": linear_gelu,
    "attention": attention,
    "attention-grad": attention_grad,
    "layernorm": layernorm,
    "layernorm-grad": layernorm_grad,
    "rmsnorm": rmsnorm,
    "softmax": softmax,
    "gelu": gelu,
    "embedding": embedding,
    "softmax-ce": softmax_ce,
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
