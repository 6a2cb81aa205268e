/**
 * Owns: ONNX tensors as values that are known at import: their bytes, in any of the format's ways of
 * keeping them, as numbers. Floats of every width become float32, integers exact doubles.
 * Invariant: the count of elements is checked against the bytes that are there before anything is allocated.
 */
import { TrainingError } from "../../errors.js";
import { bytesOfArray } from "../byte-source.js";
import { elementArray, elementBytes, widenToFloat32, type ElementType } from "../element-type.js";
import type { OnnxTensorProto } from "./schema.js";

/** A tensor whose value is known: a weight, or what shapes are computed from. */
export interface Constant {
  shape: number[];
  /** Whether it was a floating type. */
  float: boolean;
  data: Float32Array | Float64Array;
  /** The initializer's name; empty for computed ones. */
  name: string;
  /** Of a transposed matrix: the one that is kept, so that tied weights stay one. */
  transposeOf?: Constant;
  /** Written by a node, not a weight: it is not trained. */
  fixed?: boolean;
}

/** Reads `length` bytes of a file beside the model; without it, external data is refused. */
export type ExternalData = (location: string, offset: number, length: number) => Uint8Array;

/** TensorProto.DataType. */
export const FLOAT = 1;
export const INT64 = 7;
const TYPES: Readonly<Record<number, ElementType>> = {
  1: "F32", 2: "U8", 3: "I8", 4: "U16", 5: "I16", 6: "I32", 7: "I64", 9: "BOOL", 10: "F16", 11: "F64", 12: "U32", 13: "U64", 16: "BF16",
};
export const TYPE_NAMES: Readonly<Record<number, string>> = {
  0: "undefined", 1: "float", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "string", 9: "bool",
  10: "float16", 11: "double", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128", 16: "bfloat16",
};
export const isFloatType = (type: number): boolean => type === 1 || type === 10 || type === 11 || type === 16;
/** Sizes that a dimension may have: what a plan can hold. */
export const DIMENSION_MAX = 0x7fffffff;
const EXTERNAL = 1;

export function readTensor(proto: OnnxTensorProto, external?: ExternalData): Constant {
  const { name } = proto;
  const fail = (message: string): never => {
    throw new TrainingError("format", `onnx: tensor "${name}" ${message}`, { tensor: name });
  };
  const type = TYPES[proto.dataType] ?? fail(`has the type ${TYPE_NAMES[proto.dataType] ?? proto.dataType}, which is not read here`);
  const shape = proto.dims.map(Number);
  const odd = shape.find((size) => !Number.isInteger(size) || size < 0 || size > DIMENSION_MAX);
  if (odd !== undefined) fail(`has a dimension of ${odd}`);
  const count = shape.reduce((product, size) => product * size, 1);
  const float = isFloatType(proto.dataType);
  let bytes: Uint8Array | undefined = proto.rawData;
  if (proto.dataLocation === EXTERNAL) {
    if (external === undefined) fail("lies in another file; pass `externalData` to read it from a folder of yours");
    const field = (key: string): string | undefined => proto.externalData.find((pair) => pair.key === key)?.value;
    const location = field("location") ?? "", offset = Number(field("offset") ?? 0), length = count * elementBytes(type);
    const plain = location !== "" && !/^([/\\]|[A-Za-z]:)|(^|[/\\])\.\.([/\\]|$)|\0/.test(location);
    if (!plain || !Number.isSafeInteger(offset) || offset < 0) fail(`names ${JSON.stringify(location)} at ${offset}, no place within a folder`);
    bytes = external!(location, offset, length);
  }
  if (bytes !== undefined && bytes.length > 0) {
    if (bytes.length !== count * elementBytes(type)) fail(`(${shape.join(" x ")}) needs ${count * elementBytes(type)} bytes, got ${bytes.length}`);
    const stored = elementArray(type, count);
    bytesOfArray(stored).set(bytes);
    return { name, shape, float, data: float ? widened(type, stored) : Float64Array.from(stored as ArrayLike<number>, Number) };
  }
  const lists: Partial<Record<ElementType, ArrayLike<number | bigint>>> = {
    F32: proto.floatData, F64: proto.doubleData, I64: proto.int64Data, U64: proto.uint64Data, U32: proto.uint64Data,
  };
  const list = lists[type] ?? proto.int32Data;
  if (list.length !== count) fail(`(${shape.join(" x ")}) needs ${count} elements, got ${list.length}`);
  if (!float) return { name, shape, float, data: Float64Array.from(list, Number) };
  const bits = type === "F16" || type === "BF16";
  return { name, shape, float, data: bits ? widened(type, Uint16Array.from(list as number[])) : Float32Array.from(list as number[]) };
}

function widened(type: ElementType, data: Parameters<typeof widenToFloat32>[1]): Float32Array {
  if (data instanceof Float32Array) return data;
  const out = new Float32Array(data.length);
  widenToFloat32(type, data, out);
  return out;
}

export const floatTensor = (name: string, shape: readonly number[], data: Float32Array): object =>
  ({ name, dims: shape, dataType: FLOAT, rawData: bytesOfArray(data) });
export const intTensor = (name: string, shape: readonly number[], values: readonly number[]): object =>
  ({ name, dims: shape, dataType: INT64, rawData: bytesOfArray(BigInt64Array.from(values, BigInt)) });
