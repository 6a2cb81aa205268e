/**
 * Owns: the names and layouts under which Hugging Face keeps the weights of GPT-2 and Llama, and the
 * way between such a file and our flat parameter vector. Ours are matrices (in, out). GPT-2's Conv1D
 * is stored the same way; Llama's Linear is (out, in), so it is transposed, and our one matrix for
 * queries, keys and values is cut into three.
 * Invariant: importing reads every weight once and leaves none of the file's unexplained.
 */
import { TrainingError } from "../errors.js";
import type { ParameterLayout, ParameterSlot } from "../compile/layout.js";
import type { NamedTensor, SafetensorsFile } from "./safetensors.js";

/** One of their tensors, and which columns of which of our parameters it is. */
export interface WeightMapping {
  name: string;
  key: string;
  /** Theirs is (out, in). */
  transposed?: boolean;
  /** [from, to) of our columns; all when missing. */
  columns?: readonly [number, number];
}

export interface WeightMap {
  weights: readonly WeightMapping[];
  /** Keys that may be there and are not read: masks, rotary tables, a head that is the token table. */
  ignored: RegExp;
  /** Some files name the model around the weights. */
  prefixes: readonly string[];
}

/** transformers' GPT2LMHeadModel; the head is the token table (tied). */
export function gpt2WeightMap({ layers }: { layers: number }): WeightMap {
  const weights: WeightMapping[] = [
    { name: "tokens/weight", key: "wte.weight" }, { name: "positions/weight", key: "wpe.weight" },
  ];
  const pair = (ours: string, theirs: string): void => {
    for (const part of ["weight", "bias"]) weights.push({ name: `${ours}/${part}`, key: `${theirs}.${part}` });
  };
  for (let i = 0; i < layers; i++) {
    pair(`block${i}/norm1`, `h.${i}.ln_1`);
    pair(`block${i}/attention/qkv`, `h.${i}.attn.c_attn`);
    pair(`block${i}/attention/projection`, `h.${i}.attn.c_proj`);
    pair(`block${i}/norm2`, `h.${i}.ln_2`);
    pair(`block${i}/mlp/expansion`, `h.${i}.mlp.c_fc`);
    pair(`block${i}/mlp/projection`, `h.${i}.mlp.c_proj`);
  }
  pair("norm", "ln_f");
  return { weights, prefixes: ["", "transformer."], ignored: /^(lm_head\.weight|(transformer\.)?h\.\d+\.attn\.(bias|masked_bias))$/ };
}

export interface LlamaMapOptions {
  layers: number;
  heads: number;
  /** Heads of keys and values; `heads` when missing. */
  keyHeads?: number;
  width: number;
  tied?: boolean;
}

/** transformers' LlamaForCausalLM, whose rotary pairs are halves of a head, as ours are. */
export function llamaWeightMap({ layers, heads, keyHeads = heads, width, tied = false }: LlamaMapOptions): WeightMap {
  const size = width / heads, keys = keyHeads * size;
  const weights: WeightMapping[] = [{ name: "tokens/weight", key: "model.embed_tokens.weight" }];
  for (let i = 0; i < layers; i++) {
    const from = `model.layers.${i}`, qkv = `block${i}/attention/qkv/weight`;
    weights.push(
      { name: `block${i}/norm1/weight`, key: `${from}.input_layernorm.weight` },
      { name: qkv, key: `${from}.self_attn.q_proj.weight`, transposed: true, columns: [0, width] },
      { name: qkv, key: `${from}.self_attn.k_proj.weight`, transposed: true, columns: [width, width + keys] },
      { name: qkv, key: `${from}.self_attn.v_proj.weight`, transposed: true, columns: [width + keys, width + 2 * keys] },
      { name: `block${i}/attention/projection/weight`, key: `${from}.self_attn.o_proj.weight`, transposed: true },
      { name: `block${i}/norm2/weight`, key: `${from}.post_attention_layernorm.weight` },
      { name: `block${i}/mlp/gate/weight`, key: `${from}.mlp.gate_proj.weight`, transposed: true },
      { name: `block${i}/mlp/expansion/weight`, key: `${from}.mlp.up_proj.weight`, transposed: true },
      { name: `block${i}/mlp/projection/weight`, key: `${from}.mlp.down_proj.weight`, transposed: true },
    );
  }
  weights.push({ name: "norm/weight", key: "model.norm.weight" });
  if (!tied) weights.push({ name: "head/weight", key: "lm_head.weight", transposed: true });
  return { weights, prefixes: [""], ignored: tied ? /^lm_head\.weight$|rotary_emb\.inv_freq$/ : /rotary_emb\.inv_freq$/ };
}

/** Reads a model's weights from a file with Hugging Face's names into our flat vector, tensor by tensor. */
export async function importWeights(file: SafetensorsFile, layout: ParameterLayout, map: WeightMap): Promise<Float32Array<ArrayBuffer>> {
  const prefix = map.prefixes.find((each) => file.tensors.has(each + map.weights[0]!.key));
  if (prefix === undefined) throw missing(map.weights[0]!.key, file);
  const known = new Set(map.weights.map(({ key }) => prefix + key));
  const strange = [...file.tensors.keys()].find((key) => !known.has(key) && !map.ignored.test(key));
  if (strange !== undefined) throw new TrainingError("format", `the file's tensor "${strange}" belongs to no weight of this model`, { key: strange });
  const slots = slotsOf(layout, map), flat = new Float32Array(layout.parameterCount);
  for (const mapping of map.weights) {
    const key = prefix + mapping.key, slot = slots.get(mapping.name)!, shape = theirShape(mapping, slot);
    const entry = file.tensors.get(key);
    if (entry === undefined) throw missing(key, file);
    if (entry.shape.length !== shape.length || entry.shape.some((size, i) => size !== shape[i])) {
      throw new TrainingError("format", `"${key}" must be ${shape.join(" x ")} for "${slot.name}" (${slot.shape.join(" x ")}), ` +
        `the file has ${entry.shape.join(" x ")}`, { key });
    }
    const ours = flat.subarray(slot.offset, slot.offset + slot.size);
    if (isPlain(mapping)) await file.readFloat32(key, ours);
    else place(await file.readFloat32(key), mapping, slot, ours, false);
  }
  return flat;
}

/** The weights under Hugging Face's names, for encodeSafetensors() or safetensorsChunks(). */
export function exportWeights(flat: Float32Array, layout: ParameterLayout, map: WeightMap): Map<string, NamedTensor> {
  if (flat.length !== layout.parameterCount) {
    throw new TrainingError("length", `the model has ${layout.parameterCount} parameters, got ${flat.length}`);
  }
  const slots = slotsOf(layout, map);
  return new Map(map.weights.map((mapping) => {
    const slot = slots.get(mapping.name)!, shape = theirShape(mapping, slot);
    const ours = flat.subarray(slot.offset, slot.offset + slot.size);
    if (isPlain(mapping)) return [mapping.key, { shape, data: ours }];
    const data = new Float32Array(shape.reduce((product, size) => product * size, 1));
    place(data, mapping, slot, ours, true);
    return [mapping.key, { shape, data }];
  }));
}

const isPlain = ({ transposed, columns }: WeightMapping): boolean => !transposed && columns === undefined;

/** Every parameter must be filled by the map, and the map must name nothing else. */
function slotsOf(layout: ParameterLayout, map: WeightMap): Map<string, ParameterSlot> {
  const slots = new Map(layout.parameters.map((slot) => [slot.name, slot]));
  const mapped = new Set(map.weights.map(({ name }) => name));
  const apart = [...mapped].find((name) => !slots.has(name)) ?? [...slots.keys()].find((name) => !mapped.has(name));
  if (apart !== undefined) throw new TrainingError("option", `the weight map is of another model: "${apart}" is in one of them alone`);
  return slots;
}

function theirShape({ transposed, columns }: WeightMapping, slot: ParameterSlot): readonly number[] {
  if (slot.shape.length !== 2) return slot.shape;
  const [rows, all] = slot.shape as [number, number], count = columns === undefined ? all : columns[1] - columns[0];
  return transposed ? [count, rows] : [rows, count];
}

/** Between theirs and a range of our columns; `out` writes theirs. */
function place(theirs: Float32Array, { transposed, columns }: WeightMapping, slot: ParameterSlot, ours: Float32Array, out: boolean): void {
  const [rows, width] = slot.shape as [number, number], [from, to] = columns ?? [0, width], count = to - from;
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < count; column++) {
      const a = row * width + from + column, b = transposed ? column * rows + row : row * count + column;
      if (out) theirs[b] = ours[a]!;
      else ours[a] = theirs[b]!;
    }
  }
}

const missing = (key: string, file: SafetensorsFile): TrainingError =>
  new TrainingError("format", `the file has no tensor "${key}"; it begins with ${[...file.tensors.keys()].slice(0, 4).join(", ") || "none at all"}`, { key });
