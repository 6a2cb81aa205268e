/** Resolving Fashion-MNIST: order of sources, refusal of anything but the pinned files, strict IDX. */
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { FASHION_MNIST_SHA256, loadFashionMnist } from "../../src/data/fashion-mnist.js";
import { parseIdx } from "../../src/data/idx.js";

/** An IDX file of unsigned bytes. */
function idx(shape: number[], bytes: number, magic = 0x0800 | shape.length): Uint8Array {
  const out = new Uint8Array(4 + 4 * shape.length + bytes);
  const view = new DataView(out.buffer);
  view.setUint32(0, magic);
  shape.forEach((size, i) => view.setUint32(4 + 4 * i, size));
  return out;
}

describe("IDX", () => {
  it("is read to the byte", () => {
    expect(parseIdx(idx([2, 3, 4], 24), 3, "f")).toMatchObject({ shape: [2, 3, 4], data: { length: 24 } });
  });
  it.each<[string, Uint8Array, object]>([
    ["an empty file", new Uint8Array(0), { expected: 16, actual: 0, message: expect.stringMatching(/f is truncated/) }],
    ["a cut header", idx([2, 3, 4], 0).subarray(0, 10), { message: expect.stringMatching(/truncated/) }],
    ["cut data", idx([2, 3, 4], 23), { expected: 40, actual: 39, message: expect.stringMatching(/f is truncated.*asks for 40 bytes, the file has 39/) }],
    ["extra data", idx([2, 3, 4], 25), { expected: 40, actual: 41, message: expect.stringMatching(/extra bytes/) }],
    ["another type", idx([2, 3, 4], 24, 0x0d03), { expected: "0x00000803", actual: "0x00000d03" }],
    ["labels for images", idx([24], 24), { expected: "0x00000803", actual: "0x00000801" }],
    ["sizes that overflow", idx([0xffffffff, 0xffffffff, 0xffffffff], 0), { message: expect.stringMatching(/truncated/) }],
  ])("refuses %s, naming file, expected and got", (_, bytes, fields) => {
    expect(() => parseIdx(bytes, 3, "f")).toThrow(expect.objectContaining({ code: "idx-format", file: "f", ...fields }));
  });
});

describe("Fashion-MNIST", () => {
  let directory: string;
  beforeEach(async () => { directory = await mkdtemp(join(tmpdir(), "tesra-data-")); });
  afterEach(async () => { await rm(directory, { recursive: true, force: true }); });
  const names = Object.keys(FASHION_MNIST_SHA256);
  const nowhere = (): { cacheDirectory: string; systemDirectory: string } =>
    ({ cacheDirectory: join(directory, "cache"), systemDirectory: join(directory, "system") });

  it("says what was tried where, and what to do, when it is nowhere", async () => {
    const calls: string[] = [];
    const failing = loadFashionMnist(nowhere(), {
      exec: (command, args) => {
        calls.push([command, ...args].join(" "));
        return Promise.reject(new Error("no network"));
      },
      fetch: (url) => {
        calls.push(url);
        return Promise.resolve({ ok: false, status: 404, arrayBuffer: () => Promise.resolve(new ArrayBuffer(0)) });
      },
    });
    await expect(failing).rejects.toMatchObject({
      code: "not-found",
      message: expect.stringMatching(/Install the Debian package[^]*cache: [^]*system: [^]*Debian package: no network[^]*answered 404/),
    });
    expect(calls[0]).toBe("apt-get download dataset-fashion-mnist");
    expect(calls[1]).toMatch(/^https:.*\.gz$/);
    expect(await readdir(join(directory, "cache"))).toEqual([]); // no work directory is left
  });

  it("an explicit path is used alone", async () => {
    await expect(loadFashionMnist({ path: join(directory, "none"), ...nowhere() })).rejects.toMatchObject({
      code: "not-found", message: expect.stringMatching(/there is no directory/),
    });
  });

  it("refuses other bytes under the right names, plain or compressed, whatever the source", async () => {
    const wrong = join(directory, "wrong");
    await mkdir(wrong);
    for (const name of names) await writeFile(join(wrong, name), name.includes("idx3") ? idx([60_000, 28, 28], 47_040_000) : idx([60_000], 60_000));
    await expect(loadFashionMnist({ path: wrong })).rejects.toMatchObject({ code: "hash-mismatch", expected: FASHION_MNIST_SHA256["train-images-idx3-ubyte"] });
    const file = join(wrong, names[0]!);
    await rm(file);
    await writeFile(`${file}.gz`, gzipSync(idx([60_000, 28, 28], 100)));
    await expect(loadFashionMnist({ path: wrong })).rejects.toMatchObject({ code: "idx-format", message: expect.stringMatching(/asks for 47040016 bytes, the file has 116/) });
    await writeFile(`${file}.gz`, gzipSync(new Uint8Array(50_000_000))); // grows beyond the largest file
    await expect(loadFashionMnist({ path: wrong })).rejects.toMatchObject({ code: "idx-format", message: expect.stringMatching(/cannot be decompressed/) });
    const body = gzipSync(idx([60_000, 28, 28], 100));
    await expect(loadFashionMnist(nowhere(), {
      fetch: () => Promise.resolve({ ok: true, status: 200, arrayBuffer: () => Promise.resolve(body.buffer.slice(body.byteOffset, body.byteOffset + body.length) as ArrayBuffer) }),
    })).rejects.toMatchObject({ code: "not-found", message: expect.stringMatching(/download: .*truncated/) });
  });
});
