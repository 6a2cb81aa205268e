// Reads Fashion-MNIST for the examples: a folder with the four IDX files, packed (.gz) or not.
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";

const IMAGE_HEADER_BYTES = 16;
const LABEL_HEADER_BYTES = 8;

function readIdx(folder, name, headerBytes) {
  const path = join(folder, name);
  const bytes = existsSync(path) ? readFileSync(path) : gunzipSync(readFileSync(`${path}.gz`));
  return new Uint8Array(bytes.subarray(headerBytes));
}

/** `images` holds rows x 784 bytes, `labels` one byte a row. */
export function readFashionMnist(folder) {
  const split = (name) => ({
    images: readIdx(folder, `${name}-images-idx3-ubyte`, IMAGE_HEADER_BYTES),
    labels: readIdx(folder, `${name}-labels-idx1-ubyte`, LABEL_HEADER_BYTES),
  });
  return { train: split("train"), test: split("t10k") };
}
