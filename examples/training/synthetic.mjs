// Synthetic images for the examples: ten random patterns of 28 x 28, each row one of them under noise.
/** The same seed gives the same rows. `images` holds rows x 784 bytes, `labels` one byte a row. */
export function syntheticImages(rows, seed) {
  let state = seed >>> 0;
  const next = () => ((state = (Math.imul(state, 1664525) + 1013904223) >>> 0) >>> 24);
  const pixels = 28 * 28;
  state = 7; // the patterns are the same for every seed: train and test rows belong together
  const patterns = Uint8Array.from({ length: 10 * pixels }, next);
  state = seed >>> 0;
  const labels = Uint8Array.from({ length: rows }, () => next() % 10);
  const images = new Uint8Array(rows * pixels);
  for (let i = 0; i < images.length; i += 1) {
    const pattern = patterns[labels[Math.floor(i / pixels)] * pixels + (i % pixels)];
    images[i] = (pattern + 3 * next()) >> 2; // one part pattern, three parts noise
  }
  return { images, labels };
}
