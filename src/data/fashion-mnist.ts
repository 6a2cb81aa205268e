/**
 * Owns: finding Fashion-MNIST (Xiao et al. 2017, MIT): 60,000 + 10,000 grey images of 28 x 28 in
 * 10 classes. Order: an explicit path, the cache, the Debian package's directory, the package
 * fetched and unpacked without root, HTTPS from its home.
 * Invariant: whatever the source, only the four files with the pinned SHA-256 are accepted.
 */
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { gunzip } from "node:zlib";
import { DataError, ioError } from "./errors.js";
import { parseIdx } from "./idx.js";

/** SHA-256 of the uncompressed files. */
export const FASHION_MNIST_SHA256 = {
  "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
  "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
  "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
  "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
} as const;

export type FashionMnistFile = keyof typeof FASHION_MNIST_SHA256;
const FILES = Object.keys(FASHION_MNIST_SHA256) as FashionMnistFile[];

export const SYSTEM_DIRECTORY = "/usr/share/datasets/fashion-mnist";
export const DEBIAN_PACKAGE = "dataset-fashion-mnist";
export const HOME_URL = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion";
export const FASHION_MNIST_CLASSES = [
  "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
] as const;

/** The largest uncompressed file has 47,040,016 bytes: a gzip that grows beyond is refused. */
const FILE_BYTES_MAX = 47_040_016;
const COMPRESSED_BYTES_MAX = 64 * 2 ** 20;

export interface Split {
  /** rows x 784, row-major. */
  images: Uint8Array;
  labels: Uint8Array;
  rows: number;
}

export interface FashionMnist {
  train: Split;
  test: Split;
  height: 28;
  width: 28;
  classes: 10;
  /** Where it was found. */
  source: string;
}

export interface FashionMnistOptions {
  /** A directory with the four files, plain or .gz; nothing else is tried when it is given. */
  path?: string;
  /** Where fetched files are kept, as in ~/.cache/tesra-supernet/fashion-mnist. */
  cacheDirectory?: string;
  systemDirectory?: string;
}

/** The world: leave one out and that source is skipped. */
export interface FashionMnistModules {
  /** Runs a program to its end, in a directory; rejects on a non-zero exit. */
  exec?(command: string, args: string[], options: { cwd: string }): Promise<void>;
  fetch?(url: string): Promise<{ ok: boolean; status: number; arrayBuffer(): Promise<ArrayBuffer> }>;
}

/** Loads and verifies the data set from the first source that has it; DataError names every attempt. */
export async function loadFashionMnist(options: FashionMnistOptions, modules: FashionMnistModules = {}): Promise<FashionMnist> {
  if (options.path !== undefined) return read(options.path);
  const { cacheDirectory, systemDirectory = SYSTEM_DIRECTORY } = options;
  const attempts: string[] = [];
  const attempt = async (name: string, source: () => Promise<FashionMnist>): Promise<FashionMnist | undefined> => {
    try {
      return await source();
    } catch (error) {
      attempts.push(`${name}: ${(error as Error).message}`);
      return undefined;
    }
  };
  const found =
    (cacheDirectory === undefined ? undefined : await attempt("cache", () => read(cacheDirectory))) ??
    (await attempt("system", () => read(systemDirectory))) ??
    (cacheDirectory === undefined || modules.exec === undefined ? undefined
      : await attempt("Debian package", () => fromPackage(cacheDirectory, modules.exec!))) ??
    (modules.fetch === undefined ? undefined
      : await attempt("download", () => fromHome(cacheDirectory, modules.fetch!)));
  if (found !== undefined) return found;
  throw new DataError("not-found", `Fashion-MNIST was not found. Install the Debian package ${DEBIAN_PACKAGE}, or give ` +
    `the directory that holds its four files.\n  ${attempts.join("\n  ")}`);
}

async function read(directory: string): Promise<FashionMnist> {
  const entries = await readdir(directory).catch((error: NodeJS.ErrnoException) => {
    throw new DataError("not-found", error.code === "ENOENT" ? `there is no directory ${directory}`
      : `cannot read ${directory}: ${error.message}`, { file: directory });
  });
  const files = new Map<FashionMnistFile, Uint8Array>();
  for (const name of FILES) {
    const entry = [name, `${name}.gz`].find((candidate) => entries.includes(candidate));
    if (entry === undefined) throw new DataError("not-found", `${directory} has neither ${name} nor ${name}.gz`, { file: name });
    const file = join(directory, entry);
    const { size } = await stat(file);
    if (size > COMPRESSED_BYTES_MAX) {
      throw new DataError("idx-format", `${file} has ${size} bytes, expected at most ${COMPRESSED_BYTES_MAX}`,
        { file, expected: COMPRESSED_BYTES_MAX, actual: size });
    }
    const bytes = await readFile(file).catch((error: Error) => { throw ioError(error, "cannot read", file); });
    files.set(name, verified(name, entry.endsWith(".gz") ? await unzip(bytes, file) : bytes, file));
  }
  return assemble(files, directory);
}

async function unzip(bytes: Uint8Array, file: string): Promise<Uint8Array> {
  try {
    return await promisify(gunzip)(bytes, { maxOutputLength: FILE_BYTES_MAX });
  } catch (error) {
    throw new DataError("idx-format", `${file} cannot be decompressed (truncated or damaged): ${(error as Error).message}`, { file });
  }
}

function verified(name: FashionMnistFile, bytes: Uint8Array, file: string): Uint8Array {
  const actual = createHash("sha256").update(bytes).digest("hex"), expected = FASHION_MNIST_SHA256[name];
  if (actual !== expected) {
    // The strict parse explains a damaged file better than two hashes do.
    parseIdx(bytes, name.includes("idx3") ? 3 : 1, file);
    throw new DataError("hash-mismatch", `${file} is not Fashion-MNIST's ${name}: SHA-256 is ${actual}, expected ${expected}`,
      { file, expected, actual });
  }
  return bytes;
}

function assemble(files: ReadonlyMap<FashionMnistFile, Uint8Array>, source: string): FashionMnist {
  const split = (part: "train" | "t10k"): Split => {
    const images = parseIdx(files.get(`${part}-images-idx3-ubyte`)!, 3, `${part}-images-idx3-ubyte`);
    const labels = parseIdx(files.get(`${part}-labels-idx1-ubyte`)!, 1, `${part}-labels-idx1-ubyte`);
    return { images: images.data, labels: labels.data, rows: labels.shape[0]! };
  };
  return { train: split("train"), test: split("t10k"), height: 28, width: 28, classes: 10, source };
}

/** apt-get download needs no root: it writes the package into the working directory. */
async function fromPackage(cacheDirectory: string, exec: NonNullable<FashionMnistModules["exec"]>): Promise<FashionMnist> {
  const work = await workDirectory(cacheDirectory);
  try {
    await exec("apt-get", ["download", DEBIAN_PACKAGE], { cwd: work });
    const archive = (await readdir(work)).find((name) => name.startsWith(`${DEBIAN_PACKAGE}_`) && name.endsWith(".deb"));
    if (archive === undefined) throw new DataError("not-found", `apt-get download left no ${DEBIAN_PACKAGE} archive`);
    await exec("dpkg-deb", ["-x", archive, "unpacked"], { cwd: work });
    const files = new Map<string, Uint8Array>();
    const unpacked = join(work, "unpacked", SYSTEM_DIRECTORY);
    const found = await read(unpacked); // verify before anything enters the cache
    for (const name of FILES) files.set(`${name}.gz`, await readFile(join(unpacked, `${name}.gz`)));
    await keep(cacheDirectory, files);
    return { ...found, source: `Debian package ${DEBIAN_PACKAGE}` };
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function fromHome(cacheDirectory: string | undefined, fetch: NonNullable<FashionMnistModules["fetch"]>): Promise<FashionMnist> {
  const compressed = new Map<string, Uint8Array>(), files = new Map<FashionMnistFile, Uint8Array>();
  for (const name of FILES) {
    const url = `${HOME_URL}/${name}.gz`;
    const response = await fetch(url);
    if (!response.ok) throw new DataError("not-found", `${url} answered ${response.status}`, { file: url });
    const bytes = new Uint8Array(await response.arrayBuffer());
    files.set(name, verified(name, await unzip(bytes, url), url));
    compressed.set(`${name}.gz`, bytes);
  }
  if (cacheDirectory !== undefined) await keep(cacheDirectory, compressed);
  return assemble(files, HOME_URL);
}

/** Puts files into the cache, each whole or not at all. */
async function keep(cacheDirectory: string, files: ReadonlyMap<string, Uint8Array>): Promise<void> {
  const work = await workDirectory(cacheDirectory);
  try {
    for (const [name, bytes] of files) {
      await writeFile(join(work, name), bytes);
      await rename(join(work, name), join(cacheDirectory, name));
    }
  } catch (error) {
    throw ioError(error, "cannot fill the cache", cacheDirectory);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function workDirectory(cacheDirectory: string): Promise<string> {
  try {
    await mkdir(cacheDirectory, { recursive: true });
    return await mkdtemp(join(cacheDirectory, ".fetch-"));
  } catch (error) {
    throw ioError(error, "cannot use the cache", cacheDirectory);
  }
}
