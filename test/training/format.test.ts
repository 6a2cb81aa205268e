/** Tensor and token files: what is written is read, what is hostile is refused, weights keep their places under other names. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { initialParameters, parameterLayout } from "../../src/training/compile/layout.js";
import { memorySource, openFileSource } from "../../src/training/format/byte-source.js";
import { bfloatToFloat, ELEMENT_TYPES, elementArray, floatToBfloat, floatToHalf, halfToFloat } from "../../src/training/format/element-type.js";
import { exportWeights, gpt2WeightMap, importWeights, llamaWeightMap } from "../../src/training/format/hugging-face.js";
import { decodeNpy, encodeNpy } from "../../src/training/format/npy.js";
import { decodeSafetensors, encodeSafetensors, SafetensorsFile, type StoredTensor } from "../../src/training/format/safetensors.js";
import { encodeTokenShard, TokenShards } from "../../src/training/format/token-shard.js";
import { PhiloxStream } from "../../src/training/graph/philox.js";
import { gpt2, llama } from "../../src/training/models.js";

const folder = mkdtempSync(join(tmpdir(), "tesra-format-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Every type, with bytes that would show any conversion; empty tensors and scalars too. */
function everyType(): Map<string, Required<StoredTensor>> {
  const random = new PhiloxStream(1n, 0);
  return new Map(ELEMENT_TYPES.flatMap((type) => [[2, 3], [], [0, 4]].map((shape) => {
    const data = elementArray(type, shape.reduce((p, n) => p * n, 1));
    const bytes = new Uint8Array(data.buffer);
    for (let i = 0; i < bytes.length; i++) bytes[i] = type === "BOOL" ? i % 2 : random.below(256);
    return [`${type}/${shape.join("x")}`, { type, shape, data }] as const;
  })));
}
const bytesOf = (array: ArrayBufferView): Buffer => Buffer.from(array.buffer, array.byteOffset, array.byteLength);

describe("half precision", () => {
  it("widens every pattern exactly and narrows it back", () => {
    for (let bits = 0; bits < 0x10000; bits++) {
      const half = halfToFloat(bits), bfloat = bfloatToFloat(bits);
      if (Number.isNaN(half)) expect(Number.isNaN(halfToFloat(floatToHalf(half)))).toBe(true);
      else if (floatToHalf(half) !== bits) throw new Error(`half ${bits}`);
      if (Number.isNaN(bfloat)) expect(Number.isNaN(bfloatToFloat(floatToBfloat(bfloat)))).toBe(true);
      else if (floatToBfloat(bfloat) !== bits) throw new Error(`bfloat ${bits}`);
    }
    expect([halfToFloat(0x3555), halfToFloat(1), halfToFloat(0x7bff), bfloatToFloat(0x3eab)]).toEqual([0.333251953125, 2 ** -24, 65504, 0.333984375]);
  });

  it("narrows to the nearer neighbour, to the even one between two", () => {
    for (const [toBits, fromBits, last] of [[floatToHalf, halfToFloat, 0x7bff], [floatToBfloat, bfloatToFloat, 0x7f7f]] as const) {
      for (let bits = 0; bits < last; bits += 41) {
        const low = fromBits(bits), high = fromBits(bits + 1), middle = (low + high) / 2;
        expect([toBits(middle), toBits(-middle) & 0x7fff]).toEqual([bits + (bits & 1), bits + (bits & 1)]);
        expect(toBits(low + (middle - low) * 0.9)).toBe(bits);
        expect(toBits(high - (high - middle) * 0.9)).toBe(bits + 1);
      }
    }
    expect([floatToHalf(65519.99), floatToHalf(65520), floatToHalf(-Infinity), floatToHalf(2 ** -25)]).toEqual([0x7bff, 0x7c00, 0xfc00, 0]);
  });
});

describe("safetensors", () => {
  const tensors = everyType(), file = encodeSafetensors(tensors, { format: "pt" });

  it("keeps every type's bytes, read one by one from a file or from memory", async () => {
    const path = join(folder, "all.safetensors");
    writeFileSync(path, file);
    for (const source of [await openFileSource(path), file]) {
      const opened = await SafetensorsFile.open(source);
      expect(opened.metadata).toEqual({ format: "pt" });
      for (const [name, want] of tensors) {
        const got = await opened.read(name);
        expect([got.type, got.shape, got.data.constructor]).toEqual([want.type, want.shape, want.data.constructor]);
        expect(bytesOf(got.data).equals(bytesOf(want.data)), name).toBe(true);
      }
      await expect(opened.read("none")).rejects.toThrow(/no tensor "none" among 39/);
      await opened.close();
    }
  });

  it("reads another tool's file, byte for byte", () => {
    const header = '{"b":{"dtype":"F16","shape":[2],"data_offsets":[4,8]},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}';
    const bytes = Buffer.concat([Buffer.from([header.length, 0, 0, 0, 0, 0, 0, 0]), Buffer.from(header), Buffer.from("0000803f003c00c0", "hex")]);
    const read = decodeSafetensors(bytes).tensors;
    expect([[...read.get("a")!.data], [...read.get("b")!.data]]).toEqual([[1], [1, -2]]);
  });

  it("widens floats piece by piece and refuses integers", async () => {
    const count = 2 ** 21 + 5, bits = Uint16Array.from({ length: count }, (_, i) => i & 0x7bff);
    const opened = await SafetensorsFile.open(encodeSafetensors(new Map([["h", { type: "F16", shape: [count], data: bits }], ["i", { shape: [1], data: Int32Array.of(3) }]] as [string, StoredTensor][])));
    const wide = await opened.readFloat32("h");
    expect(wide.findIndex((value, i) => value !== halfToFloat(bits[i]!))).toBe(-1);
    await expect(opened.readFloat32("i")).rejects.toThrow(/"i" has the type I32, and only floating types/);
    await expect(opened.readFloat32("h", new Float32Array(3))).rejects.toThrow(/room was given for 3/);
  });

  const withHeader = (header: string, dataBytes: number, declared = Buffer.byteLength(header)): Buffer => {
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(declared));
    return Buffer.concat([length, Buffer.from(header), Buffer.alloc(dataBytes)]);
  };
  const one = (fields: string, data = 8): Buffer => withHeader(`{"a":{${fields}}}`, data);
  it.each([
    ["an empty file", Buffer.alloc(0), /at least 8 bytes/],
    ["a header beyond the file", withHeader("{}", 0, 99), /header of 99 bytes does not fit/],
    ["a header of 2^63 bytes", Buffer.from("ffffffffffffff7f7b7d", "hex"), /does not fit/],
    ["a list", withHeader("[]", 0), /must be an object/],
    ["half a text", withHeader('{"a":', 0), /not JSON/],
    ["bytes that are no UTF-8", Buffer.concat([Buffer.from([2, 0, 0, 0, 0, 0, 0, 0]), Buffer.from([0xff, 0xfe])]), /not JSON/],
    ["deep nesting", withHeader("[".repeat(200_000), 0), /not JSON/],
    ["an unknown type", one('"dtype":"F4","shape":[2],"data_offsets":[0,8]'), /"F4"; expected one of F64/],
    ["a type from the prototype", one('"dtype":"constructor","shape":[2],"data_offsets":[0,8]'), /expected one of/],
    ["a negative size", one('"dtype":"F32","shape":[-2],"data_offsets":[0,8]'), /no valid shape/],
    ["a size that is half", one('"dtype":"F32","shape":[0.5],"data_offsets":[0,8]'), /no valid shape/],
    ["a product beyond 2^64", one('"dtype":"F32","shape":[4294967296,4294967297,2],"data_offsets":[0,8]'), /needs 1475739/],
    ["offsets backwards", one('"dtype":"F32","shape":[2],"data_offsets":[8,0]'), /got 8 to 0/],
    ["offsets past the end", one('"dtype":"F32","shape":[4],"data_offsets":[0,16]'), /within 8/],
    ["a hole", withHeader('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}', 3), /hole or an overlap at byte 1/],
    ["an overlap", withHeader('{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}', 3), /hole or an overlap at byte 1/],
    ["a key twice", withHeader('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}', 2), /hole or an overlap at byte 0/],
    ["bytes behind", one('"dtype":"F32","shape":[1],"data_offsets":[0,4]'), /4 bytes follow/],
    ["metadata that is no text", withHeader('{"__metadata__":{"a":1}}', 0), /texts to texts/],
  ])("refuses %s", async (_, bytes, message) => {
    expect(() => decodeSafetensors(bytes)).toThrow(message);
    await expect(SafetensorsFile.open(bytes)).rejects.toThrow(message);
  });

  it("refuses damage or reads the same sizes: one byte changed anywhere in the header", () => {
    const small = encodeSafetensors(new Map([["a", { shape: [2, 2], data: Float32Array.of(1, 2, 3, 4) }], ["b", { shape: [3], data: Float32Array.of(5, 6, 7) }]]));
    fc.assert(fc.property(fc.nat({ max: small.length - 29 }), fc.nat({ max: 255 }), (at, byte) => {
      const damaged = small.slice();
      damaged[at] = byte;
      let total = 0;
      try { for (const { data } of decodeSafetensors(damaged).tensors.values()) total += data.byteLength; }
      catch (error) { return (error as { code: string }).code === "format"; }
      return total <= small.length;
    }), { numRuns: 500, seed: 1 });
  });

  it("refuses to write what it would not read", () => {
    expect(() => encodeSafetensors(new Map([["a", { shape: [3], data: Float32Array.of(1) }]]))).toThrow(/1 elements, not 3/);
    expect(() => encodeSafetensors(new Map([["a", { type: "F16", shape: [1], data: Float32Array.of(1) }]] as [string, StoredTensor][]))).toThrow(/is no F16/);
    expect(() => encodeSafetensors(new Map([["__metadata__", { shape: [1], data: Float32Array.of(1) }]]))).toThrow(/cannot be named/);
  });
});

describe("npy", () => {
  it("keeps every type that NumPy has", () => {
    for (const [name, tensor] of everyType()) {
      if (tensor.type === "BF16") { expect(() => encodeNpy(tensor)).toThrow(/no type for BF16/); continue; }
      const file = encodeNpy(tensor), read = decodeNpy(file);
      expect([read.type, read.shape], name).toEqual([tensor.type, tensor.shape]);
      expect(bytesOf(read.data).equals(bytesOf(tensor.data))).toBe(true);
      expect((file.length - tensor.data.byteLength) % 64).toBe(0);
    }
  });
  it("writes NumPy's own bytes", () => {
    const text = "\u0093NUMPY\u0001\u0000v\u0000{'descr': '<i4', 'fortran_order': False, 'shape': (2,), }".padEnd(127) + "\n";
    expect(Buffer.from(encodeNpy({ shape: [2], data: Int32Array.of(1, -1) })).toString("hex"))
      .toBe(Buffer.from(text, "latin1").toString("hex") + "01000000ffffffff");
  });
  const npy = (dictionary: string, dataBytes = 8, version = 1): Buffer => Buffer.concat([
    Buffer.from([0x93, ...Buffer.from("NUMPY"), version, 0, dictionary.length & 255, dictionary.length >> 8, ...(version > 1 ? [0, 0] : [])]),
    Buffer.from(dictionary), Buffer.alloc(dataBytes)]);
  it("reads keys in any order, version 2, and no more than the file has", () => {
    expect(decodeNpy(npy("{'shape': (2, 1), 'fortran_order': False, 'descr': '<f4'}\n", 8, 2)).shape).toEqual([2, 1]);
  });
  it.each([
    ["another magic", Buffer.from("not a numpy file"), /does not begin/],
    ["version 9", npy("{}", 0, 9), /version 9/],
    ["a header cut off", npy("{'descr': '<f4', ").subarray(0, 14), /does not fit/],
    ["big-endian", npy("{'descr': '>f4', 'fortran_order': False, 'shape': (2,), }"), /'>f4' is not read/],
    ["objects", npy("{'descr': '|O', 'fortran_order': False, 'shape': (2,), }"), /'\|O' is not read/],
    ["Fortran's order", npy("{'descr': '<f4', 'fortran_order': True, 'shape': (2,), }"), /ascontiguousarray/],
    ["code for a shape", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (__import__('os'),), }"), /the header says/],
    ["a key twice", npy("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,), }"), /twice/],
    ["no shape", npy("{'descr': '<f4', 'fortran_order': False, }"), /needs a 'descr'/],
    ["a shape beyond the data", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (999999999999999, 999999999999999), }"), /needs 4e\+30|needs \d+/],
    ["bytes behind", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }"), /needs 4 bytes, the file has 8/],
  ])("refuses %s", (_, bytes, message) => expect(() => decodeNpy(bytes)).toThrow(message));
});

describe("token shards", () => {
  const ids = Array.from({ length: 203 }, (_, i) => i);
  const bare = (from: number, to: number): Uint8Array => new Uint8Array(Uint16Array.from(ids.slice(from, to)).buffer);
  const options = { length: 10, batchSize: 4, seed: 7 };

  it("gives every window once an epoch, the same for a seed from any batch on, over headers and bare files", async () => {
    const sources = [memorySource(encodeTokenShard(ids.slice(0, 101))), memorySource(bare(101, 203))];
    const shards = await TokenShards.open(sources, options);
    expect([shards.tokens, shards.windows]).toEqual([203, 20]);
    const again = await TokenShards.open(sources, options), starts: number[] = [];
    for (const index of [4, 0, 9, 1, 2, 3]) expect(await again.batch(index)).toEqual(await shards.batch(index)); // in any order
    for (let index = 0; index < 5; index++) {
      const { tokens, labels, epoch } = await shards.batch(index);
      expect(epoch).toBe(0);
      labels.forEach((label, i) => expect(label).toBe(tokens[i]! + 1));
      for (let row = 0; row < 4; row++) starts.push(tokens[row * 10]!);
    }
    expect([...new Set(starts)].sort((a, b) => a - b)).toEqual(Array.from({ length: 20 }, (_, i) => (i < 10 ? 10 * i : 101 + 10 * (i - 10))));
    expect(starts).not.toEqual(starts.toSorted((a, b) => a - b));
    const other = await TokenShards.open(sources, { ...options, seed: 8 });
    expect((await other.batch(0)).tokens).not.toEqual((await shards.batch(0)).tokens);
    expect((await shards.batch(5)).tokens).not.toEqual((await shards.batch(0)).tokens); // another epoch, another order
  });

  it("fills a short rest from the next epoch", async () => {
    const shards = await TokenShards.open([memorySource(bare(0, 61))], options); // 6 windows, batches of 4
    const rows = await Promise.all([0, 1, 2].map(async (index) => (await shards.batch(index)).tokens.filter((_, i) => i % 10 === 0)));
    const all = rows.flatMap((each) => [...each]);
    expect(all.slice(0, 6).sort((a, b) => a - b)).toEqual([0, 10, 20, 30, 40, 50]);
    expect(all.slice(6).sort((a, b) => a - b)).toEqual([0, 10, 20, 30, 40, 50]);
  });

  it("takes wide ids, by header or by option", async () => {
    const wide = [70_000, 1, 2, 3], file = encodeTokenShard(wide);
    expect(file.length).toBe(1024 + 16);
    const row = { length: 3, batchSize: 1, seed: 1 };
    for (const shards of [await TokenShards.open([memorySource(file)], row), await TokenShards.open([memorySource(new Uint8Array(Uint32Array.from(wide).buffer))], { ...row, idType: "uint32" })]) {
      expect([...(await shards.batch(0)).tokens]).toEqual([70_000, 1, 2]);
    }
  });

  it("refuses headers that lie, ids out of range and files without a row", async () => {
    const lying = encodeTokenShard(ids);
    new DataView(lying.buffer).setInt32(8, 999, true);
    await expect(TokenShards.open([memorySource(lying)], options)).rejects.toThrow(/token shard 0: the header counts 999 tokens, the file has 203/);
    new DataView(lying.buffer).setInt32(4, 2, true);
    await expect(TokenShards.open([memorySource(lying)], options)).rejects.toThrow(/version 2/);
    await expect(TokenShards.open([memorySource(bare(0, 9).subarray(1))], options)).rejects.toThrow(/17 bytes are no whole number/);
    await expect(TokenShards.open([memorySource(bare(0, 10))], options)).rejects.toThrow(/make no row of 10/);
    const shards = await TokenShards.open([memorySource(bare(0, 203))], { ...options, vocabulary: 150, batchSize: 20 });
    await expect(shards.batch(0)).rejects.toThrow(/token (1[5-9]\d|20\d) at position \1 of shard 0 is not in 0..149/);
    expect(() => encodeTokenShard([1, -1])).toThrow(/token -1 at position 1/);
  });
});

describe("Llama under Hugging Face's names", () => {
  it.each([true, false])("comes back the same, its projections (out, in) and queries, keys and values apart; tied %s", async (tied) => {
    const config = { vocabulary: 13, length: 6, layers: 2, heads: 4, keyHeads: 2, width: 16, hidden: 24, tied };
    const { graph } = llama(config), layout = parameterLayout(graph), map = llamaWeightMap(config);
    const flat = initialParameters(graph, 5), theirs: Map<string, StoredTensor> = new Map(exportWeights(flat, layout, map));
    expect(theirs.has("lm_head.weight")).toBe(!tied);
    const shapes = ["q", "k", "v", "o"].map((part) => theirs.get(`model.layers.1.self_attn.${part}_proj.weight`)!.shape);
    expect([...shapes, theirs.get("model.layers.0.mlp.down_proj.weight")!.shape]).toEqual([[16, 16], [8, 16], [8, 16], [16, 16], [16, 24]]);
    const { offset } = layout.parameters.find(({ name }) => name === "block0/attention/qkv/weight")!;
    const key = theirs.get("model.layers.0.self_attn.k_proj.weight")!.data; // ours (16, 32): keys are columns 16 to 24
    for (const [row, column] of [[0, 0], [3, 7], [15, 2]] as const) expect(key[column * 16 + row]).toBe(flat[offset + row * 32 + 16 + column]);
    expect(await importWeights(await SafetensorsFile.open(encodeSafetensors(theirs)), layout, map)).toEqual(flat);
  });
});

describe("GPT-2 under Hugging Face's names", () => {
  const config = { vocabulary: 13, length: 6, layers: 2, heads: 2, width: 8 };
  const layout = parameterLayout(gpt2(config).graph), map = gpt2WeightMap(config);
  const flat = initialParameters(gpt2(config).graph, 5).map((value, i) => value + i / 1000);
  for (const { offset, size } of layout.parameters) flat.fill(0, offset + size, Math.ceil((offset + size) / 16) * 16);

  it("comes back the same, also with the model's prefix, masks and the tied head of older files", async () => {
    const theirs: Map<string, StoredTensor> = new Map(exportWeights(flat, layout, map));
    expect([...theirs.keys()].slice(0, 4)).toEqual(["wte.weight", "wpe.weight", "h.0.ln_1.weight", "h.0.ln_1.bias"]);
    expect(theirs.get("h.1.attn.c_attn.weight")!.shape).toEqual([8, 24]); // Conv1D: (in, out)
    expect(await importWeights(await SafetensorsFile.open(encodeSafetensors(theirs)), layout, map)).toEqual(flat);
    const prefixed = new Map<string, StoredTensor>([...theirs].map(([key, tensor]) => [`transformer.${key}`, tensor]));
    prefixed.set("lm_head.weight", theirs.get("wte.weight")!);
    prefixed.set("transformer.h.0.attn.bias", { type: "U8", shape: [1, 1, 6, 6], data: new Uint8Array(36) });
    expect(await importWeights(await SafetensorsFile.open(encodeSafetensors(prefixed)), layout, map)).toEqual(flat);
  });

  it("names what is missing, strange or of another shape", async () => {
    const read = async (change: (tensors: Map<string, StoredTensor>) => void): Promise<unknown> => {
      const theirs: Map<string, StoredTensor> = new Map(exportWeights(flat, layout, map));
      change(theirs);
      return importWeights(await SafetensorsFile.open(encodeSafetensors(theirs)), layout, map);
    };
    await expect(read((t) => t.delete("h.1.mlp.c_fc.bias"))).rejects.toThrow(/no tensor "h.1.mlp.c_fc.bias"; it begins with wte.weight/);
    await expect(read((t) => t.clear())).rejects.toThrow(/none at all/);
    await expect(read((t) => t.set("h.2.ln_1.bias", { shape: [8], data: new Float32Array(8) }))).rejects.toThrow(/"h.2.ln_1.bias" belongs to no weight/);
    await expect(read((t) => t.set("ln_f.bias", { shape: [7], data: new Float32Array(7) }))).rejects.toThrow(/"ln_f.bias" must be 8 for "norm\/bias" \(8\), the file has 7/);
    await expect(read((t) => t.set("ln_f.bias", { shape: [8], data: new Int32Array(8) }))).rejects.toThrow(/only floating types/);
    expect(() => exportWeights(flat, layout, gpt2WeightMap({ layers: 3 }))).toThrow(/of another model: "block2/);
  });
});
