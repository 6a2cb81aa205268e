"""PyTorch's side of the GPT-2 and Llama comparison: writes the first weights, or trains from them; one JSON line.

Weights travel as safetensors under our parameter names, matrices as (in, out). Tokens come from a
linear congruential generator that both sides compute, so no data set is needed: random tokens give a
loss near log(vocabulary), and the steps' differences are the arithmetic's.
"""
import argparse
import json
import math
import resource
import struct
import time

import torch
import torch.nn.functional as F
from torch import nn

CONFIGS = {
    "124m": dict(vocabulary=50257, layers=12, heads=12, width=768),
    "small": dict(vocabulary=512, layers=4, heads=4, width=128),
    "llama-small": dict(vocabulary=512, layers=4, heads=4, keys=2, width=128, hidden=344),
    # One block of Llama 3.2 1B's shape over a small vocabulary: the block is what is measured.
    "llama-block": dict(vocabulary=512, layers=1, heads=32, keys=8, width=2048, hidden=8192),
}


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).split(width, dim=2)
        q, k, v = (t.view(batch, length, self.heads, -1).transpose(1, 2) for t in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Gpt(nn.Module):
    def __init__(self, vocabulary, layers, heads, width, length):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, ids):
        x = self.tokens(ids) + self.positions.weight
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.tokens.weight)

    def named(self):
        """(our name, parameter, stored transposed)"""
        yield "tokens/weight", self.tokens.weight, False
        yield "positions/weight", self.positions.weight, False
        for i, b in enumerate(self.blocks):
            for name, module in (("norm1", b.norm1), ("attention/qkv", b.qkv), ("attention/projection", b.out),
                                 ("norm2", b.norm2), ("mlp/expansion", b.up), ("mlp/projection", b.down)):
                yield f"block{i}/{name}/weight", module.weight, isinstance(module, nn.Linear)
                yield f"block{i}/{name}/bias", module.bias, False
        yield "norm/weight", self.norm.weight, False
        yield "norm/bias", self.norm.bias, False


class LlamaBlock(nn.Module):
    def __init__(self, width, heads, keys, hidden):
        super().__init__()
        self.heads, self.keys, self.size = heads, keys, width // heads
        self.norm1, self.norm2 = nn.RMSNorm(width, eps=1e-5), nn.RMSNorm(width, eps=1e-5)
        self.qkv = nn.Linear(width, (heads + 2 * keys) * self.size, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gate, self.up = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x, cosine, sine):
        batch, length, width = x.shape
        q, k, v = (t.view(batch, length, -1, self.size).transpose(1, 2) for t in
                   self.qkv(self.norm1(x)).split([width, self.keys * self.size, self.keys * self.size], dim=2))

        def turn(t):
            low, high = t.chunk(2, dim=-1)
            return t * cosine + torch.cat((-high, low), dim=-1) * sine

        mixed = F.scaled_dot_product_attention(turn(q), turn(k), v, is_causal=True, enable_gqa=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        h = self.norm2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Llama(nn.Module):
    def __init__(self, vocabulary, layers, heads, keys, width, hidden, length):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(LlamaBlock(width, heads, keys, hidden) for _ in range(layers))
        self.norm, self.head = nn.RMSNorm(width, eps=1e-5), nn.Linear(width, vocabulary, bias=False)
        size = width // heads
        turns = torch.outer(torch.arange(length, dtype=torch.float64), 10000.0 ** (-torch.arange(0, size, 2, dtype=torch.float64) / size))
        self.register_buffer("cosine", torch.cat((turns, turns), dim=1).cos().float(), persistent=False)
        self.register_buffer("sine", torch.cat((turns, turns), dim=1).sin().float(), persistent=False)

    def forward(self, ids):
        x = self.tokens(ids)
        for block in self.blocks:
            x = block(x, self.cosine, self.sine)
        return self.head(self.norm(x))

    def named(self):
        """(our name, parameter, stored transposed)"""
        yield "tokens/weight", self.tokens.weight, False
        for i, b in enumerate(self.blocks):
            for name, module in (("norm1", b.norm1), ("attention/qkv", b.qkv), ("attention/projection", b.out),
                                 ("norm2", b.norm2), ("mlp/gate", b.gate), ("mlp/expansion", b.up), ("mlp/projection", b.down)):
                yield f"block{i}/{name}/weight", module.weight, isinstance(module, nn.Linear)
        yield "norm/weight", self.norm.weight, False
        yield "head/weight", self.head.weight, True


def initialize(model, layers):
    torch.manual_seed(1234)
    with torch.no_grad():
        for name, p, _ in model.named():
            if name.endswith("bias"):
                p.zero_()
            elif p.dim() == 1:
                p.fill_(1)
            else:
                p.normal_(0, 0.02 / math.sqrt(2 * layers) if name.endswith("projection/weight") else 0.02)


def write(model, path):
    header, offset, data = {}, 0, []
    for name, p, transposed in model.named():
        value = (p.t() if transposed else p).detach().contiguous()
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [offset, offset + 4 * value.numel()]}
        offset += 4 * value.numel()
        data.append(value)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for value in data:
            file.write(value.numpy().tobytes())


def read(model, path):
    with open(path, "rb") as file:
        size, = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        with torch.no_grad():
            for name, p, transposed in model.named():
                start, end = header[name]["data_offsets"]
                file.seek(8 + size + start)
                value = torch.frombuffer(bytearray(file.read(end - start)), dtype=torch.float32)
                value = value.view(header[name]["shape"])
                p.copy_(value.t() if transposed else value)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", choices=list(CONFIGS), default="small")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write")
    parser.add_argument("--read")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_num_interop_threads(1)
    config = CONFIGS[options.config]
    model = (Llama if "hidden" in config else Gpt)(**config, length=options.length)
    if options.write:
        initialize(model, config["layers"])
        write(model, options.write)
        return
    read(model, options.read)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, fused=True)
    state = 1
    losses, seconds = [], []
    for _ in range(options.steps):
        ids = []
        for _ in range(options.batch * (options.length + 1)):
            state = (state * 1664525 + 1013904223) % 2**32
            ids.append((state >> 8) % config["vocabulary"])
        rows = torch.tensor(ids).view(options.batch, options.length + 1)
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        logits = model(rows[:, :-1].contiguous())
        loss = F.cross_entropy(logits.view(-1, config["vocabulary"]), rows[:, 1:].reshape(-1))
        loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
        losses.append(loss.item())
    print(json.dumps({"engine": f"pytorch {torch.__version__}", "losses": losses, "seconds": seconds,
                      "peakBytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


main()
