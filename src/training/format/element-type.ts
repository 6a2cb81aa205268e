/**
 * Owns: the element types that tensor files name, the typed array that holds each, and widening to
 * float32. Half and bfloat16 elements are held as their bits, in a Uint16Array.
 * Invariant: every float16 and bfloat16 is exactly a float32; NaN stays NaN.
 */

export type ElementType =
  | "F64" | "F32" | "F16" | "BF16" | "I64" | "I32" | "I16" | "I8" | "U64" | "U32" | "U16" | "U8" | "BOOL";

export type ElementArray =
  | Float64Array | Float32Array | BigInt64Array | BigUint64Array | Int32Array | Uint32Array
  | Int16Array | Uint16Array | Int8Array | Uint8Array;

interface ElementArrayConstructor {
  readonly BYTES_PER_ELEMENT: number;
  new (length: number): ElementArray;
}

const ARRAYS: Readonly<Record<ElementType, ElementArrayConstructor>> = {
  F64: Float64Array, F32: Float32Array, F16: Uint16Array, BF16: Uint16Array,
  I64: BigInt64Array, I32: Int32Array, I16: Int16Array, I8: Int8Array,
  U64: BigUint64Array, U32: Uint32Array, U16: Uint16Array, U8: Uint8Array, BOOL: Uint8Array,
};

export const ELEMENT_TYPES = Object.keys(ARRAYS) as ElementType[];
export const isElementType = (value: unknown): value is ElementType =>
  typeof value === "string" && Object.hasOwn(ARRAYS, value);
export const elementBytes = (type: ElementType): number => ARRAYS[type].BYTES_PER_ELEMENT;
export const elementArray = (type: ElementType, length: number): ElementArray => new ARRAYS[type](length);

/** The type that an array stands for when nothing else is said; bits of half floats are not told from U16. */
export function typeOfArray(array: ElementArray): ElementType {
  return ELEMENT_TYPES.find((type) => type !== "F16" && type !== "BF16" && array instanceof ARRAYS[type])!;
}
export const holds = (type: ElementType, array: ElementArray): boolean => array instanceof ARRAYS[type];

const word = new Uint32Array(1), float = new Float32Array(word.buffer);

/** IEEE binary16 to float32, exact. */
export function halfToFloat(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 0x1f, fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** Float32 to IEEE binary16, to nearest, ties to even. */
export function floatToHalf(value: number): number {
  float[0] = value;
  const bits = word[0]!, sign = (bits >>> 16) & 0x8000, magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00; // 65,520 and above round to infinity
  if (magnitude >= 0x38800000) return sign | ((magnitude + 0xfff + ((magnitude >>> 13) & 1) - 0x38000000) >>> 13);
  return sign | roundToEven(Math.abs(float[0]!) * 2 ** 24);
}

/** bfloat16 to float32: the upper half of its bits. */
export function bfloatToFloat(bits: number): number {
  word[0] = bits << 16;
  return float[0]!;
}

/** Float32 to bfloat16, to nearest, ties to even. */
export function floatToBfloat(value: number): number {
  float[0] = value;
  const bits = word[0]!;
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40;
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

function roundToEven(value: number): number {
  const below = Math.floor(value), rest = value - below;
  return rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? below + 1 : below;
}

/** Writes floating types as float32 (F64 rounds); false, and nothing written, for integers. */
export function widenToFloat32(type: ElementType, data: ElementArray, out: Float32Array): boolean {
  switch (type) {
    case "F32":
    case "F64":
      out.set(data as Float32Array | Float64Array);
      return true;
    case "F16":
    case "BF16": {
      const widen = type === "F16" ? halfToFloat : bfloatToFloat, bits = data as Uint16Array;
      for (let i = 0; i < bits.length; i++) out[i] = widen(bits[i]!);
      return true;
    }
    default:
      return false;
  }
}
