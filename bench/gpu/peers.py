"""Times the peers of kernel-time.cu on the same GPU: PyTorch eager (cuBLAS, cuDNN) and cuBLASLt's int8 product.

Same shapes, random data, warm-up and median as kernel-time.cu. Prints one JSON object; exit 4 without torch or GPU.
"""
import json
import statistics
import sys

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
times = []


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


def report(name, ms, rate, unit):
    times.append({"name": name, "ms": round(ms, 4), "rate": round(rate, 2), "unit": unit})


def attempt(name, run):
    """One peer that fails (an unsupported shape, say) does not hide the others."""
    try:
        run()
    except Exception as error:  # noqa: BLE001 - the reason goes into the record
        times.append({"name": name, "error": str(error).splitlines()[0]})
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


def copy():
    count = 2 << 30
    source = torch.randint(0, 256, (count,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    ms = time_ms(lambda: target.copy_(source))
    report("device copy 2 GiB", ms, 2.0 * count / ms / 1e6, "GB/s")


attempt("device copy 2 GiB", copy)
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
print(json.dumps({"torch": torch.__version__, "gpu": torch.cuda.get_device_name(0), "tf32": False,
                  "repeats": REPEATS, "statistic": "median", "times": times}))
