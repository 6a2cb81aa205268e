/**
 * Owns: the part of ONNX's protobuf schema that models without control flow need, read and written by
 * protobufjs. Sub-graphs, functions, sparse tensors and training data are not declared, so they are
 * skipped as unknown fields and nothing here nests deeper than the schema below.
 */
import protobuf from "protobufjs/light.js";
import { TrainingError } from "../../errors.js";

export interface OnnxTensorProto {
  dims: (number | bigint)[];
  dataType: number;
  floatData: number[];
  int32Data: number[];
  int64Data: (number | bigint)[];
  doubleData: number[];
  uint64Data: (number | bigint)[];
  name: string;
  rawData: Uint8Array;
  externalData: { key: string; value: string }[];
  dataLocation: number;
}
export interface OnnxAttributeProto {
  name: string;
  type: number;
  f: number;
  i: number | bigint;
  s: Uint8Array;
  t: OnnxTensorProto | null;
  floats: number[];
  ints: (number | bigint)[];
  strings: Uint8Array[];
}
export interface OnnxNodeProto {
  input: string[];
  output: string[];
  name: string;
  opType: string;
  domain: string;
  attribute: OnnxAttributeProto[];
}
export interface OnnxValueProto {
  name: string;
  type: { tensorType: { elemType: number; shape: { dim: { dimValue?: number | bigint; dimParam?: string }[] } | null } | null } | null;
}
export interface OnnxGraphProto {
  name: string;
  node: OnnxNodeProto[];
  initializer: OnnxTensorProto[];
  input: OnnxValueProto[];
  output: OnnxValueProto[];
}
export interface OnnxModelProto {
  irVersion: number | bigint;
  producerName: string;
  producerVersion: string;
  graph: OnnxGraphProto | null;
  opsetImport: { domain: string; version: number | bigint }[];
}

type Field = [type: string, id: number, rule?: "repeated"];
const message = (fields: Record<string, Field>, oneofs?: Record<string, string[]>): object => ({
  fields: Object.fromEntries(Object.entries(fields).map(([name, [type, id, rule]]) => [name, { type, id, ...(rule && { rule }) }])),
  ...(oneofs && { oneofs: Object.fromEntries(Object.entries(oneofs).map(([name, oneof]) => [name, { oneof }])) }),
});

/** Field numbers of onnx.proto (IR version 10). */
const ROOT = protobuf.Root.fromJSON({
  options: { syntax: "proto3" },
  nested: {
    Model: message({
      irVersion: ["int64", 1], producerName: ["string", 2], producerVersion: ["string", 3], graph: ["Graph", 7],
      opsetImport: ["OperatorSet", 8, "repeated"],
    }),
    OperatorSet: message({ domain: ["string", 1], version: ["int64", 2] }),
    Graph: message({
      node: ["Node", 1, "repeated"], name: ["string", 2], initializer: ["Tensor", 5, "repeated"],
      input: ["Value", 11, "repeated"], output: ["Value", 12, "repeated"],
    }),
    Node: message({
      input: ["string", 1, "repeated"], output: ["string", 2, "repeated"], name: ["string", 3], opType: ["string", 4],
      attribute: ["Attribute", 5, "repeated"], domain: ["string", 7],
    }),
    Attribute: message({
      name: ["string", 1], f: ["float", 2], i: ["int64", 3], s: ["bytes", 4], t: ["Tensor", 5],
      floats: ["float", 7, "repeated"], ints: ["int64", 8, "repeated"], strings: ["bytes", 9, "repeated"], type: ["int32", 20],
    }),
    Tensor: message({
      dims: ["int64", 1, "repeated"], dataType: ["int32", 2], floatData: ["float", 4, "repeated"], int32Data: ["int32", 5, "repeated"],
      int64Data: ["int64", 7, "repeated"], name: ["string", 8], rawData: ["bytes", 9], doubleData: ["double", 10, "repeated"],
      uint64Data: ["uint64", 11, "repeated"], externalData: ["Pair", 13, "repeated"], dataLocation: ["int32", 14],
    }),
    Pair: message({ key: ["string", 1], value: ["string", 2] }),
    Value: message({ name: ["string", 1], type: ["Type", 2] }),
    Type: message({ tensorType: ["TensorType", 1] }),
    TensorType: message({ elemType: ["int32", 1], shape: ["Shape", 2] }),
    Shape: message({ dim: ["Dimension", 1, "repeated"] }),
    Dimension: message({ dimValue: ["int64", 1], dimParam: ["string", 2] }, { value: ["dimValue", "dimParam"] }),
  },
} as protobuf.INamespace);
const MODEL = ROOT.lookupType("Model");

/** Missing fields come as their defaults, messages as null; 64-bit integers as bigint. */
export function decodeModel(bytes: Uint8Array): OnnxModelProto {
  try {
    return MODEL.toObject(MODEL.decode(bytes), { longs: BigInt, defaults: true }) as unknown as OnnxModelProto;
  } catch (error) {
    throw new TrainingError("format", `onnx: the file is no model: ${(error as Error).message}`);
  }
}

export function encodeModel(model: object): Uint8Array {
  return MODEL.encode(MODEL.fromObject(model)).finish();
}
