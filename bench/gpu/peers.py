"""Times the peers of kernel-time.cu and gpt.mjs on the same GPU: PyTorch eager (cuBLASLt, cuDNN) and torch.compile.

Same shapes, random data, warm-up and median as kernel-time.cu. Prints one JSON object a line, so that what was timed
survives what fails; exit 4 without torch or GPU.
"""
import importlib.util
import json
import pathlib
import statistics
import sys
import time

WARM_UPS = 3
REPEATS = 15

try:
    import torch
except ImportError as error:
    print(f"no peer: {error}", file=sys.stderr)
    sys.exit(4)
if not torch.cuda.is_available():
    print("no peer: torch sees no GPU", file=sys.stderr)
    sys.exit(4)

# fp32 means fp32: the peers' TF32 shortcut rounds operands to 10 bits.
torch.backends.cuda.matmul.allow_tf32 = False
torch.backends.cudnn.allow_tf32 = False
torch.backends.cudnn.benchmark = True
device = torch.device("cuda")


def time_ms(run):
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    found = []
    for i in range(WARM_UPS + REPEATS):
        begin.record()
        run()
        end.record()
        end.synchronize()
        if i >= WARM_UPS:
            found.append(begin.elapsed_time(end))
    return statistics.median(found)


def say(row):
    print(json.dumps(row), flush=True)


def report(name, ms, rate, unit):
    say({"name": name, "ms": round(ms, 4), "rate": round(rate, 2), "unit": unit})


def attempt(name, run):
    """One peer that fails (an unsupported shape, say) does not hide the others."""
    try:
        run()
    except Exception as error:  # noqa: BLE001 - the reason goes into the record
        say({"name": name, "error": (str(error) or type(error).__name__).splitlines()[0]})
    torch.cuda.empty_cache()


def gemm(m, n, k, trans_a, trans_b):
    name = f"sgemm {'T' if trans_a else 'N'}{'T' if trans_b else 'N'} {m}x{n}x{k}"

    def run():
        a = torch.rand((k, m) if trans_a else (m, k), device=device) - 0.5
        b = torch.rand((n, k) if trans_b else (k, n), device=device) - 0.5
        x, y = (a.t() if trans_a else a), (b.t() if trans_b else b)
        out = torch.empty((m, n), device=device)
        ms = time_ms(lambda: torch.mm(x, y, out=out))
        report(name, ms, 2.0 * m * n * k / ms / 1e9, "TFLOP/s")

    attempt(name, run)


def int8(m, n, k):
    name = f"int8 gemm {m}x{n}x{k}"

    def run():
        a = torch.randint(-128, 128, (m, k), dtype=torch.int8, device=device)
        b = torch.randint(-128, 128, (n, k), dtype=torch.int8, device=device)
        ms = time_ms(lambda: torch._int_mm(a, b.t()))
        report(name, ms, m * n * k / ms / 1e9, "TMAC/s")

    attempt(name, run)


def conv(n, size, c, oc, kernel):
    def run():
        x = (torch.rand((n, c, size, size), device=device) - 0.5).to(memory_format=torch.channels_last)
        w = (torch.rand((oc, c, kernel, kernel), device=device) - 0.5).to(memory_format=torch.channels_last)
        dy = (torch.rand((n, oc, size, size), device=device) - 0.5).to(memory_format=torch.channels_last)
        pad = kernel // 2
        flops = 2.0 * n * size * size * kernel * kernel * c * oc
        backward = lambda mask: torch.ops.aten.convolution_backward(
            dy, x, w, None, [1, 1], [pad, pad], [1, 1], False, [0, 0], 1, mask)
        for kind, call in (
            ("fwd", lambda: torch.nn.functional.conv2d(x, w, padding=pad)),
            ("dx", lambda: backward([True, False, False])),
            ("dw", lambda: backward([False, True, False])),
        ):
            ms = time_ms(call)
            report(f"conv {kind} n{n} {size}x{size} c{c} oc{oc} k{kernel}", ms, flops / ms / 1e9, "TFLOP/s")

    attempt(f"conv n{n} {size}x{size} c{c} oc{oc} k{kernel}", run)


def adam(count):
    def run():
        p = torch.nn.Parameter(torch.rand(count, device=device) - 0.5)
        p.grad = torch.rand(count, device=device) - 0.5
        optimizer = torch.optim.AdamW([p], lr=1e-3, weight_decay=0.01, fused=True)
        ms = time_ms(optimizer.step)
        report(f"adamw {count}", ms, 28.0 * count / ms / 1e6, "GB/s")

    attempt(f"adamw {count}", run)


def bf16(m, n, k):
    name = f"bf16 gemm {m}x{n}x{k}"

    def run():
        a = (torch.rand((m, k), device=device) - 0.5).bfloat16()
        b = (torch.rand((n, k), device=device) - 0.5).bfloat16()
        out = torch.empty((m, n), device=device, dtype=torch.bfloat16)
        ms = time_ms(lambda: torch.mm(a, b.t(), out=out))
        report(name, ms, 2.0 * m * n * k / ms / 1e9, "TFLOP/s")

    attempt(name, run)


def both(name, amount, unit, function, *inputs):
    """A function eagerly and by torch.compile; amount per millisecond / 1e6 is the rate."""
    for kind, form in ((name, lambda: function), (f"{name} (compile)", lambda: torch.compile(function))):
        def run():
            call = form()
            ms = time_ms(lambda: call(*inputs))
            report(kind, ms, amount / ms / 1e6, unit)

        attempt(kind, run)


def transformer(rows, width, classes):
    f = torch.nn.functional
    make = lambda *shape: torch.rand(shape, device=device) - 0.5
    x, dy, gamma, beta = make(rows, width), make(rows, width), make(width), make(width)
    both(f"layer_norm {rows}x{width}", 8.0 * rows * width, "GB/s",
         lambda x: f.layer_norm(x, (width,), gamma, beta, 1e-5), x)
    mean, rstd = x.mean(1, keepdim=True), torch.rsqrt(x.var(1, keepdim=True, correction=0) + 1e-5)
    both(f"layer_norm_grad {rows}x{width}", 12.0 * rows * width, "GB/s",
         lambda dy, x: torch.ops.aten.native_layer_norm_backward(
             dy, x, [width], mean, rstd, gamma, beta, [True, True, True]), dy, x)
    count = 1 << 28
    a, b = make(count), make(count)
    both(f"gelu_tanh {count}", 8.0 * count, "GB/s", lambda a: f.gelu(a, approximate="tanh"), a)
    both(f"gelu_tanh_grad {count}", 12.0 * count, "GB/s",
         lambda a, b: torch.ops.aten.gelu_backward(a, b, approximate="tanh"), a, b)
    both(f"add {count}", 12.0 * count, "GB/s", lambda a, b: a + b, a, b)
    del a, b
    logits, labels = make(8192, classes), torch.zeros(8192, dtype=torch.long, device=device)
    both(f"softmax_xent 8192x{classes}", 8.0 * 8192 * classes, "GB/s",
         lambda z: torch.func.grad_and_value(lambda z: f.cross_entropy(z, labels))(z), logits)


def attention(batch, length, heads, size):
    name = f"b{batch} t{length} h{heads} hd{size}"
    forward = 2.0 * batch * heads * length * length * size
    for kind in (torch.float32, torch.bfloat16):
        def run():
            q, k, v = (torch.rand((batch, heads, length, size), device=device, dtype=kind, requires_grad=True)
                       for _ in range(3))
            call = lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            out = call()
            grad = torch.rand_like(out)
            short = str(kind).removeprefix("torch.")
            ms = time_ms(call)
            report(f"attention fwd {name} ({short})", ms, forward / ms / 1e9, "TFLOP/s")
            ms = time_ms(lambda: torch.autograd.grad(out, (q, k, v), grad, retain_graph=True))
            report(f"attention bwd {name} ({short})", ms, 2.5 * forward / ms / 1e9, "TFLOP/s")

        attempt(f"attention {name}", run)


def gpt(kind, compiled, batches=(64, 32, 16), length=1024):
    """The step of bench/peers/pytorch/gpt.py's model, at the largest batch that the memory holds."""
    path = pathlib.Path(__file__).parent.parent / "peers/pytorch/gpt.py"
    spec = importlib.util.spec_from_file_location("gpt_peer", path)
    peer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(peer)
    config = peer.CONFIGS["124m"]
    for batch in batches:
        name = f"gpt2 {'f32' if kind is None else 'bf16'} b{batch} t{length} ({'compile' if compiled else 'eager'})"
        try:
            model = peer.Gpt(**config, length=length).to(device)
            call = torch.compile(model) if compiled else model
            optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.1, fused=True)
            ids = torch.randint(0, config["vocabulary"], (batch, length + 1), device=device)
            found = []
            for i in range(2 + 5):
                torch.cuda.synchronize()
                begin = time.perf_counter()
                optimizer.zero_grad(set_to_none=True)
                with torch.autocast("cuda", dtype=torch.bfloat16, enabled=kind is not None):
                    logits = call(ids[:, :-1].contiguous())
                    loss = torch.nn.functional.cross_entropy(
                        logits.view(-1, config["vocabulary"]), ids[:, 1:].reshape(-1))
                loss.backward()
                optimizer.step()
                torch.cuda.synchronize()
                if i >= 2:
                    found.append((time.perf_counter() - begin) * 1000)
            ms = statistics.median(found)
            report(name, ms, batch * length / ms * 1000, "tokens/s")
            return
        except Exception as error:  # noqa: BLE001 - no memory for this batch: the next smaller one
            say({"name": name, "error": (str(error) or type(error).__name__).splitlines()[0]})
            model = call = optimizer = logits = loss = None
            torch.cuda.empty_cache()


def copy():
    count = 2 << 30
    source = torch.randint(0, 256, (count,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    ms = time_ms(lambda: target.copy_(source))
    report("device copy 2 GiB", ms, 2.0 * count / ms / 1e6, "GB/s")


say({"torch": torch.__version__, "gpu": torch.cuda.get_device_name(0), "cuda": torch.version.cuda,
     "cudnn": torch.backends.cudnn.version(), "tf32": False, "repeats": REPEATS, "statistic": "median"})
attempt("device copy 2 GiB", copy)
for shape in ((4096, 4096, 4096), (8192, 8192, 8192), (768, 3072, 65536)):
    bf16(*shape)
for size in (1024, 4096, 8192):
    gemm(size, size, size, False, False)
gemm(4096, 4096, 4096, False, True)
gemm(4096, 4096, 4096, True, False)
gemm(128, 512, 784, False, False)
gemm(784, 512, 128, True, False)
conv(128, 28, 1, 16, 5)
conv(128, 14, 16, 32, 5)
conv(64, 56, 64, 64, 3)
int8(4096, 4096, 4096)
int8(8192, 8192, 4096)
int8(8192, 8192, 8192)
adam(1 << 26)
attention(8, 1024, 12, 64)
gpt(torch.bfloat16, False)
transformer(65536, 768, 50257)
gpt(torch.bfloat16, True)
gpt(None, False)
