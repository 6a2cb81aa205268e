/**
 * Owns: NumPy's npy format, versions 1 to 3, of numbers in C order and little-endian; the header is
 * the one dictionary that NumPy writes, read by its grammar and not as Python.
 * Invariant: the file's length is exactly what the header says.
 */
import { TrainingError } from "../errors.js";
import { bytesOfArray } from "./byte-source.js";
import { elementArray, elementBytes, typeOfArray, type ElementType } from "./element-type.js";
import type { StoredTensor } from "./safetensors.js";

const MAGIC = Uint8Array.of(0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59); // "\x93NUMPY"
/** NumPy refuses longer ones too, unless it is told to trust them. */
const HEADER_BYTES_MAX = 10_000;
/** NumPy's own bound on dimensions. */
const RANK_MAX = 64;

const DESCRIPTIONS: Readonly<Partial<Record<ElementType, string>>> = {
  F64: "<f8", F32: "<f4", F16: "<f2", I64: "<i8", I32: "<i4", I16: "<i2", I8: "|i1",
  U64: "<u8", U32: "<u4", U16: "<u2", U8: "|u1", BOOL: "|b1",
};

const fail = (message: string): never => {
  throw new TrainingError("format", `npy: ${message}`);
};

export function encodeNpy({ type, shape, data }: StoredTensor): Uint8Array {
  const elementType = type ?? typeOfArray(data), description = DESCRIPTIONS[elementType];
  if (description === undefined) return fail(`NumPy has no type for ${elementType}`);
  if (shape.reduce((product, size) => product * size, 1) !== data.length) fail(`${data.length} elements are not ${shape}`);
  const tuple = shape.length === 1 ? `${shape[0]},` : shape.join(", ");
  const text = `{'descr': '${description}', 'fortran_order': False, 'shape': (${tuple}), }`;
  const before = MAGIC.length + 4, headerBytes = Math.ceil((before + text.length + 1) / 64) * 64 - before; // data starts aligned
  const file = new Uint8Array(before + headerBytes + data.byteLength);
  file.set(MAGIC);
  file.set([1, 0, headerBytes & 0xff, headerBytes >> 8], MAGIC.length);
  file.set(new TextEncoder().encode(text.padEnd(headerBytes - 1) + "\n"), before);
  file.set(bytesOfArray(data), before + headerBytes);
  return file;
}

/** F16 comes as bits in a Uint16Array. Big-endian, Fortran-ordered and structured files are refused. */
export function decodeNpy(file: Uint8Array): Required<StoredTensor> {
  if (file.length < 10 || !MAGIC.every((byte, i) => file[i] === byte)) fail("the file does not begin as NumPy's do");
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength), major = file[6]!;
  if (major < 1 || major > 3) fail(`version ${major} is unknown`);
  const start = major === 1 ? 10 : 12;
  if (file.length < start) fail("the header is cut off");
  const headerBytes = major === 1 ? view.getUint16(8, true) : view.getUint32(8, true);
  if (headerBytes > HEADER_BYTES_MAX || start + headerBytes > file.length) fail(`a header of ${headerBytes} bytes does not fit`);
  const { description, fortran, shape } = parseDictionary(new TextDecoder().decode(file.subarray(start, start + headerBytes)));
  const type = (Object.keys(DESCRIPTIONS) as ElementType[]).find((key) => DESCRIPTIONS[key] === description.replace(/^=/, "<"));
  if (type === undefined) return fail(`the type '${description}' is not read; expected one of ${Object.values(DESCRIPTIONS).join(" ")}`);
  if (fortran) fail("the array is in Fortran order; save numpy.ascontiguousarray(array)");
  const elements = shape.reduce((product, size) => product * size, 1), data = file.subarray(start + headerBytes);
  if (data.length !== elements * elementBytes(type)) {
    fail(`(${shape.join(", ")}) of ${type} needs ${elements * elementBytes(type)} bytes, the file has ${data.length}`);
  }
  const out = elementArray(type, elements);
  bytesOfArray(out).set(data);
  return { type, shape, data: out };
}

/** {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), } with the keys in any order. */
function parseDictionary(text: string): { description: string; fortran: boolean; shape: number[] } {
  const fields = new Map<string, string>();
  const body = /^\{(.*)\}\s*$/s.exec(text.trimStart())?.[1] ?? fail("the header is no dictionary");
  const pair = /\s*'(descr|fortran_order|shape)'\s*:\s*('[^']{0,16}'|True|False|\([0-9, ]*\))\s*(?:,|$)/y;
  for (let at = 0; body.slice(at).trim() !== ""; at = pair.lastIndex) {
    pair.lastIndex = at;
    const match = pair.exec(body) ?? fail(`the header says ${JSON.stringify(body.slice(at, at + 40))}`);
    if (fields.has(match[1]!)) fail(`the header names '${match[1]!}' twice`);
    fields.set(match[1]!, match[2]!);
  }
  const description = /^'(.*)'$/.exec(fields.get("descr") ?? "")?.[1], order = fields.get("fortran_order");
  const tuple = /^\(\s*((?:\d{1,15}\s*,\s*)*)(\d{1,15})?\s*\)$/.exec(fields.get("shape") ?? "");
  if (description === undefined || (order !== "True" && order !== "False") || tuple === null) {
    return fail("the header needs a 'descr', a 'fortran_order' and a 'shape'");
  }
  const shape = `${tuple[1]!}${tuple[2] ?? ""}`.split(",").map((size) => size.trim()).filter((size) => size !== "").map(Number);
  if (shape.length > RANK_MAX) fail(`an array has at most ${RANK_MAX} dimensions`);
  return { description, fortran: order === "True", shape };
}
