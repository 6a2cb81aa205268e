// Owns the list of kernel lines: what is computed, how much work it is, and who is held against whom.
// Invariant: every side gets the same `request` and times the same work; `work` counts a multiply-add as two.

import { hashLines, transformerLines } from "./transformer-lines.mjs";

export const PEERS = ["onednn", "openblas", "torch", "onnxruntime", "tfjs", "noble", "xmrig", "small"];

const gflops = { unit: "GFLOP/s", scale: 1e-9 };
const gops = { unit: "GOP/s", scale: 1e-9 };
const gigabytes = { unit: "GB/s", scale: 1e-9 };

/** @param bounds for a peer its [floor, goal]; a peer without bounds is measured all the same. */
const line = (name, title, request, work, kind, { peers, limit, bounds = {}, threads = 1 }) => ({
  name: threads === 1 ? name : `${name}-t${threads}`,
  title: `${title}, ${threads} thread${threads > 1 ? "s" : ""}`,
  request: { ...request, threads },
  work,
  ...kind,
  peers,
  limit,
  bounds,
});
const onBoth = (name, title, request, work, kind, options) =>
  [1, 2].map((threads) => line(name, title, request, work, kind, { ...options, threads }));

const product = (m, n, k, flags = {}) => ({ op: "sgemm", m, n, k, ...flags });
const multiply = ({ m, n, k }) => 2 * m * n * k;

const square = [256, 512, 1024, 2048].flatMap((size) =>
  onBoth(`sgemm-${size}`, `sgemm ${size}`, product(size, size, size), 2 * size ** 3, gflops, {
    peers: ["onednn", "openblas", "torch", ...(size === 1024 ? ["onnxruntime", "tfjs"] : [])],
    limit: "fma",
    bounds: { onednn: [0.9, 1] },
  }),
);

/** GPT-2 124M (d 768) at 512 tokens: each linear of a block forward, one of each backward kind, and the head. */
const linears = [
  ["qkv", "forward 512 x 768 -> 2304", product(512, 2304, 768)],
  ["project", "forward 512 x 768 -> 768", product(512, 768, 768)],
  ["expand", "forward 512 x 768 -> 3072", product(512, 3072, 768)],
  ["contract", "forward 512 x 3072 -> 768", product(512, 768, 3072)],
  ["dx", "input gradient 512 x 3072 -> 768, W transposed", product(512, 768, 3072, { transB: 1 })],
  ["dw", "weight gradient 768 x 3072 from 512, X transposed", product(768, 3072, 512, { transA: 1 })],
  ["head", "logits 128 x 768 -> 50257, W transposed", product(128, 50257, 768, { transB: 1 })],
].flatMap(([name, title, request]) =>
  onBoth(`gpt2-${name}`, `GPT-2 ${title}`, request, multiply(request), gflops, {
    peers: ["torch", "onednn", "openblas"],
    limit: "fma",
    bounds: { torch: [1, 1.3] },
  }),
);

const int8 = [1024, 2048].flatMap((size) =>
  onBoth(`int8-${size}`, `int8 s8 x s8 -> s32 ${size}`, { op: "int8", m: size, n: size, k: size }, 2 * size ** 3, gops, {
    peers: ["onednn", "torch"],
    limit: "int8",
    bounds: { onednn: [0.8, 1] },
  }),
);

/** Counted as the float product that it stands for, and held against oneDNN's float product. */
const exact = [2, 3].flatMap((slices) =>
  onBoth(
    `exact-${slices}`,
    `exact-int ${slices} slices 1024`,
    { op: "exact", m: 1024, n: 1024, k: 1024, slices, peerOp: "sgemm" },
    2 * 1024 ** 3,
    gflops,
    { peers: ["onednn", "torch"], limit: "fma", bounds: slices === 2 ? { onednn: [0.6, 0.9] } : {} },
  ),
);

const layers = [
  ["lenet-1", { n: 128, h: 28, c: 1, oc: 16, kernel: 5, pad: 2 }],
  ["lenet-2", { n: 128, h: 14, c: 16, oc: 32, kernel: 5, pad: 2 }],
  ["resnet-56", { n: 8, h: 56, c: 64, oc: 64, kernel: 3, pad: 1 }],
];
const convolutions = layers.flatMap(([name, layer]) =>
  [
    ["conv", "forward"],
    ["conv-dx", "input gradient"],
    ["conv-dw", "weight gradient"],
  ].map(([op, title]) => {
    const { n, h, c, oc, kernel } = layer;
    return line(
      `${op}-${name}`,
      `conv ${n} x ${h} x ${h} x ${c} -> ${oc}, ${kernel} x ${kernel}, ${title}`,
      { op, ...layer },
      2 * n * h * h * c * oc * kernel * kernel,
      gflops,
      { peers: ["onednn", "torch", ...(op === "conv" ? ["onnxruntime", "tfjs"] : [])], limit: "fma" },
    );
  }),
);

/** Seven streams of floats: four read, three written. 16 Mi parameters lie outside every cache. */
const adam = onBoth("adamw", "AdamW 16 Mi parameters", { op: "adamw", n: 1 << 24 }, 7 * 4 * (1 << 24), gigabytes, {
  peers: ["torch"],
  limit: "adam",
  bounds: { torch: [0.9, 1] },
});

const proof = onBoth("crm", "CryptoRight-M scan 1024", { op: "crm", m: 1024, n: 1024, k: 1024, peerOp: "int8" }, 2 * 1024 ** 3, gops, {
  peers: ["ours"],
  limit: "int8",
  bounds: { ours: [0.85, 0.93] },
});

/** A plan without operations, awaited: what a training step pays beside its kernels. A time, so lower is better. */
const nullStep = [1, 2].map((threads) => ({
  ...line("null-step", "null step of a plan, awaited", { op: "null" }, 0, { unit: "us", scale: 1e6 }, { peers: [], threads }),
  mostUs: 50,
}));

/** Each file of lines adds its list here. */
export const lines = [
  ...nullStep, ...square, ...linears, ...transformerLines({ onBoth, gflops, gigabytes }), ...int8, ...exact, ...convolutions,
  ...adam, ...proof, ...hashLines({ onBoth, gigabytes }),
];

/** The physical limits by name, each by thread count; `int8` is the faster of VNNI and AMX. */
export const limits = [1, 2].flatMap((threads) => [
  { name: "fma", title: "FMA peak", request: { op: "fma", threads }, ...gflops },
  { name: "vnni", title: "VNNI peak", request: { op: "vnni", threads }, ...gops },
  { name: "amx", title: "AMX int8 peak", request: { op: "amx", threads }, ...gops },
  { name: "copy", title: "non-temporal copy, read + written", request: { op: "copy", n: 1 << 24, threads }, work: 8 * (1 << 24), ...gigabytes },
  { name: "adam", title: "Adam-shaped stream", request: { op: "adam", n: 1 << 24, threads }, work: 28 * (1 << 24), ...gigabytes },
]);
