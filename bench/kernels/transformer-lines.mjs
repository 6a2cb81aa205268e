// Owns the kernel lines of what a transformer needs beside its products, and of the hashes.
// Invariant: `work` of a memory-bound line counts each byte that must be read or written once, however often a side does.

/** GPT-2 124M at 4096 tokens: rows of 768, 12.6 MB a tensor and so outside of L2. */
const [ROWS, WIDTH] = [4096, 768];
const FLOATS = 4 * ROWS * WIDTH;
const HEAD = { batch: 1, heads: 12, length: 1024, size: 64, causal: 1 };
/** Multiply-adds of the causal half, twice each: two products forward, five backward. */
const attentionWork = ({ batch, heads, length, size }, products) => batch * heads * length * length * size * products;
const hashing = { unit: "H/s", scale: 1 };

export function transformerLines({ onBoth, gflops, gigabytes }) {
  const memory = (name, title, request, streams, elements, bounds) =>
    onBoth(name, title, request, streams * 4 * elements, gigabytes, { peers: ["torch"], limit: "copy", bounds: bounds ? { torch: bounds } : {} });
  const rows = { rows: ROWS, columns: WIDTH };
  const attention = (suffix, shape, what) => [
    ...onBoth(`attention${suffix}`, `attention forward, ${what}`, { op: "attention", ...shape }, attentionWork(shape, 2), gflops, {
      peers: ["torch"], limit: "fma", bounds: { torch: [1.2, 2] },
    }),
    ...onBoth(`attention${suffix}-grad`, `attention backward, ${what}`, { op: "attention-grad", ...shape }, attentionWork(shape, 5), gflops, {
      peers: ["torch"], limit: "fma", bounds: { torch: [1.2, 2] },
    }),
  ];
  return [
    ...onBoth("gpt2-gelu", "GPT-2 forward 512 x 768 -> 3072, bias and GELU fused", { op: "linear-gelu", m: 512, n: 3072, k: 768 }, 2 * 512 * 3072 * 768, gflops, {
      peers: ["torch"], limit: "fma", bounds: { torch: [1, 1.3] },
    }),
    ...attention("", HEAD, "12 heads of 64, T 1024"),
    ...attention("-long", { ...HEAD, heads: 1, length: 2048 }, "1 head of 64, T 2048"),
    ...memory("layernorm", `LayerNorm ${ROWS} x ${WIDTH}`, { op: "layernorm", ...rows }, 2, FLOATS / 4, [1.2, 2]),
    ...memory("layernorm-grad", `LayerNorm's gradients ${ROWS} x ${WIDTH}`, { op: "layernorm-grad", ...rows }, 3, FLOATS / 4, [1.2, 2]),
    ...memory("rmsnorm", `RMSNorm ${ROWS} x ${WIDTH}`, { op: "rmsnorm", ...rows }, 2, FLOATS / 4),
    ...memory("softmax", `softmax ${ROWS} x 1024`, { op: "softmax", rows: ROWS, columns: 1024 }, 2, ROWS * 1024),
    ...memory("gelu-erf", "GELU, erf form, 8 Mi", { op: "gelu", n: 1 << 23 }, 2, 1 << 23, [1.2, 2]),
    ...memory("gelu-tanh", "GELU, tanh form, 8 Mi", { op: "gelu", n: 1 << 23, tanh: 1 }, 2, 1 << 23, [1.2, 2]),
    ...memory("embedding", `embedding of ${ROWS} of 50257 rows of ${WIDTH}`, { op: "embedding", ...rows, vocabulary: 50257 }, 2, FLOATS / 4),
    ...memory("softmax-ce", "softmax cross-entropy with its gradient, 128 x 50257", { op: "softmax-ce", rows: 128, columns: 50257 }, 2, 128 * 50257, [1.2, 2]),
  ];
}

export function hashLines({ onBoth, gigabytes }) {
  const size = 1 << 24;
  return [
    ...onBoth("blake3", "BLAKE3 of 16 MiB", { op: "blake3", size }, size, gigabytes, { peers: ["noble"] }),
    ...[1, 2].flatMap((threads) => {
      // Each thread's share is long enough for it to find its pace.
      const hashes = 12 * threads;
      return onBoth("cn2", "CN2, huge pages", { op: "cn2", hashes }, hashes, hashing, {
        peers: ["xmrig", "small"], bounds: { xmrig: [0.9, 1.1] },
      }).filter(({ request }) => request.threads === threads);
    }),
  ];
}
