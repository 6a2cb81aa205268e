// Images for the examples: Fashion-MNIST from a folder with its four files, or synthetic ones of the same form.
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { syntheticImages } from "./synthetic.mjs";

const IMAGE_HEADER_BYTES = 16;
const LABEL_HEADER_BYTES = 8;

function readIdx(folder, name, headerBytes) {
  const path = join(folder, name);
  const bytes = existsSync(path) ? readFileSync(path) : gunzipSync(readFileSync(`${path}.gz`));
  return new Uint8Array(bytes.subarray(headerBytes));
}

/** `train` and `test`: images of 28 x 28 bytes, labels of one byte. Without a folder `rows` synthetic ones to train on. */
export function loadImages(folder, rows = 8_192) {
  if (folder === undefined) return { train: syntheticImages(rows, 1), test: syntheticImages(2_000, 2) };
  const split = (name) => ({
    images: readIdx(folder, `${name}-images-idx3-ubyte`, IMAGE_HEADER_BYTES), labels: readIdx(folder, `${name}-labels-idx1-ubyte`, LABEL_HEADER_BYTES),
  });
  return { train: split("train"), test: split("t10k") };
}
