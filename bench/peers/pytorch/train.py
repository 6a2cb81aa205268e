"""PyTorch's side of the training comparison: one process, the same models, Adam, one JSON line.

Images are synthetic uint8 in memory, so reading a data set is in neither side's time; the gather of
a batch, the cast to float, forward, backward and the update are in both sides'.
"""
import argparse
import json
import time

import torch
from torch import nn

BATCH = 128
ROWS = 8192


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10))


def cnn():
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(800, 128), nn.ReLU(), nn.Linear(128, 10))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=["mlp", "cnn"], default="cnn")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--no-fused", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_num_interop_threads(1)
    torch.manual_seed(1)
    model = mlp() if options.model == "mlp" else cnn()
    if options.channels_last:
        model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=not options.no_fused)
    images = torch.randint(0, 256, (ROWS, 1, 28, 28), dtype=torch.uint8)
    labels = torch.randint(0, 10, (ROWS,))

    def step():
        rows = torch.randint(0, ROWS, (BATCH,))
        x = images[rows].float().mul_(1 / 255).sub_(0.286).div_(0.353)
        if options.channels_last:
            x = x.to(memory_format=torch.channels_last)
        loss = nn.functional.cross_entropy(model(x), labels[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(20):
        step()
    steps = 0
    cpu_start = time.process_time()
    start = time.perf_counter()
    while time.perf_counter() - start < options.seconds:
        for _ in range(5):
            loss = step()
        steps += 5
    loss.item()
    elapsed = time.perf_counter() - start
    cpu = time.process_time() - cpu_start  # of all threads: on a busy machine the fairer figure
    print(json.dumps({
        "engine": "pytorch", "torch": torch.__version__, "model": options.model, "threads": options.threads,
        "batchSize": BATCH, "steps": steps, "imagesPerSecond": steps * BATCH / elapsed, "imagesPerCpuSecond": steps * BATCH / cpu,
    }))


main()
