/**
 * Owns: reverse-mode differentiation as a graph transform: gradients are ordinary nodes appended
 * to the same graph, so one compiler serves forward and backward.
 * A gradient is placed on the device of the node it belongs to.
 * A scalar's adjoint is always a plain number (losses are built of cross entropies, scales and
 * adds), and it is folded into the first tensor gradient it meets.
 */
import { GraphError } from "../errors.js";
import type { Graph, Tensor } from "./graph.js";

/** A tensor, or for scalars the number itself. */
type Adjoint = Tensor | number;

/** Gradients for one op: the adjoint of each input, undefined where none flows. */
type Rule = (node: { inputs: Tensor[]; output: Tensor; attributes: Record<string, unknown> },
  adjoint: Adjoint, graph: Graph, wanted: boolean[]) => (Adjoint | undefined)[];

const tensor = (adjoint: Adjoint): Tensor => {
  if (typeof adjoint === "number") throw new GraphError("unsupported", "a scalar adjoint reached a tensor op");
  return adjoint;
};

const RULES: Readonly<Record<string, Rule>> = {
  matmul({ inputs: [a, b], attributes }, adjoint, graph, wanted) {
    const dy = tensor(adjoint);
    const ta = attributes.transposeA as boolean, tb = attributes.transposeB as boolean;
    const product = (x: Tensor, y: Tensor, transposeA: boolean, transposeB: boolean): Tensor =>
      graph.add("matmul", [x, y], { transposeA, transposeB });
    // dA = dY B' (or its transpose where A was transposed), dB = A' dY likewise.
    const da = (): Tensor => ta ? product(b!, dy, tb, true) : product(dy, b!, false, !tb);
    const db = (): Tensor => tb ? product(dy, a!, true, ta) : product(a!, dy, !ta, false);
    return [wanted[0] ? da() : undefined, wanted[1] ? db() : undefined];
  },
  biasAdd({ inputs: [, bias] }, adjoint, graph, wanted) {
    return [tensor(adjoint), wanted[1] ? graph.add("biasGrad", [tensor(adjoint), bias!]) : undefined];
  },
  add: (_, adjoint) => [adjoint, adjoint],
  scale({ attributes }, adjoint) {
    const alpha = attributes.alpha as number;
    return [typeof adjoint === "number" ? adjoint * alpha : adjoint.scale(alpha)];
  },
  relu({ inputs: [x], output }, adjoint, graph) {
    const dy = tensor(adjoint);
    const pooled = routedThroughPool(graph, dy, output);
    // max(relu) = relu(max): mask the pooled gradient instead, 1/kernel^2 of the elements and the
    // same bits, because the kept position holds exactly the pooled value.
    if (pooled !== undefined) {
      const masked = graph.add("reluGrad", [pooled.dy, pooled.pool]);
      return [graph.add("maxPoolGrad", [masked, pooled.pool, x!], pooled.attributes)];
    }
    return [graph.add("reluGrad", [dy, output])];
  },
  gelu({ inputs: [x], attributes }, adjoint, graph) {
    return [graph.add("geluGrad", [tensor(adjoint), x!], attributes)];
  },
  mul({ inputs: [a, b] }, adjoint, _, wanted) {
    const dy = tensor(adjoint);
    return [wanted[0] ? dy.mul(b!) : undefined, wanted[1] ? dy.mul(a!) : undefined];
  },
  div({ inputs: [, b], output }, adjoint, _, wanted) {
    const da = tensor(adjoint).div(b!);
    return [da, wanted[1] ? da.mul(output).scale(-1) : undefined];
  },
  exp: ({ output }, adjoint) => [tensor(adjoint).mul(output)],
  log: ({ inputs: [x] }, adjoint) => [tensor(adjoint).div(x!)],
  sqrt: ({ output }, adjoint) => [tensor(adjoint).div(output).scale(0.5)],
  erf: ({ inputs: [x] }, adjoint) => [tensor(adjoint).mul(x!.mul(x!).scale(-1).exp()).scale(2 / Math.sqrt(Math.PI))],
  sigmoid: ({ output }, adjoint) => [tensor(adjoint).mul(output).mul(output.scale(-1, 1))],
  stopGradient: () => [undefined],
  rope({ attributes }, adjoint, graph) {
    return [graph.add("rope", [tensor(adjoint)], { ...attributes, inverse: !(attributes.inverse as boolean) })];
  },
  transpose({ attributes }, adjoint) {
    const permutation = attributes.permutation as readonly number[];
    return [tensor(adjoint).transpose(permutation.map((_, axis) => permutation.indexOf(axis)))];
  },
  slice({ inputs: [x], attributes }, adjoint, graph) {
    const { axis, start, size } = attributes as { axis: number; start: number; size: number };
    return [graph.add("pad", [tensor(adjoint)], { axis, before: start, after: x!.shape[axis]! - start - size })];
  },
  pad({ inputs: [x], attributes }, adjoint) {
    const { axis, before } = attributes as { axis: number; before: number };
    return [tensor(adjoint).slice(axis, before, before + x!.shape[axis]!)];
  },
  concat({ inputs, attributes }, adjoint, _, wanted) {
    const axis = attributes.axis as number;
    let end = 0;
    return inputs.map(({ shape }, i) => {
      const start = end;
      end += shape[axis]!;
      return wanted[i] ? tensor(adjoint).slice(axis, start, end) : undefined;
    });
  },
  expand({ inputs: [x], output }, adjoint) {
    const added = output.shape.length - x!.shape.length;
    const axes = output.shape.flatMap((size, i) => (i < added || x!.shape[i - added] !== size ? [i] : []));
    const dy = tensor(adjoint);
    return [axes.length === 0 ? dy : dy.sum(axes).reshape(x!.shape)];
  },
  /** A scalar's adjoint is a number, which every element then has. */
  sum({ inputs: [x], attributes }, adjoint) {
    const axes = attributes.axes as readonly number[];
    if (typeof adjoint === "number") return [x!.scale(0, adjoint)];
    const kept = x!.shape.map((size, i) => (axes.includes(i) ? 1 : size));
    return [adjoint.reshape(kept).expand(x!.shape)];
  },
  silu({ inputs: [x] }, adjoint, graph) {
    return [graph.add("siluGrad", [tensor(adjoint), x!])];
  },
  layerNorm({ inputs: [x, gamma, beta], output }, adjoint, graph) {
    const dx = graph.add("layerNormGrad", [tensor(adjoint), x!, gamma!, output]);
    return [dx, graph.add("normVectorGrad", [dx, gamma!], { which: 0 }), graph.add("normVectorGrad", [dx, beta!], { which: 1 })];
  },
  rmsNorm({ inputs: [x, gamma], output }, adjoint, graph) {
    const dx = graph.add("rmsNormGrad", [tensor(adjoint), x!, gamma!, output]);
    return [dx, graph.add("normVectorGrad", [dx, gamma!], { which: 0 })];
  },
  softmax({ output }, adjoint, graph) {
    return [graph.add("softmaxGrad", [tensor(adjoint), output])];
  },
  dropout(node, adjoint, graph) {
    return [graph.add("dropout", [tensor(adjoint)], node.attributes)];
  },
  embedding({ inputs: [table, ids] }, adjoint, graph) {
    return [graph.add("embeddingGrad", [tensor(adjoint), ids!, table!]), undefined];
  },
  attention({ inputs: [qkv], output, attributes }, adjoint, graph) {
    return [graph.add("attentionGrad", [tensor(adjoint), qkv!, output], attributes)];
  },
  conv2d({ inputs: [x, w], attributes }, adjoint, graph, wanted) {
    const dy = tensor(adjoint);
    return [
      wanted[0] ? graph.add("conv2dInputGrad", [dy, w!, x!], attributes) : undefined,
      wanted[1] ? graph.add("conv2dWeightGrad", [x!, dy, w!], attributes) : undefined,
    ];
  },
  maxPool({ inputs: [x], output, attributes }, adjoint, graph) {
    return [graph.add("maxPoolGrad", [tensor(adjoint), output, x!], attributes)];
  },
  avgPool({ inputs: [x], attributes }, adjoint, graph) {
    return [graph.add("avgPoolGrad", [tensor(adjoint), x!], attributes)];
  },
  reshape({ inputs: [x] }, adjoint, graph) {
    return [graph.add("reshape", [tensor(adjoint)], { shape: x!.shape })];
  },
  softmaxCrossEntropy({ inputs: [logits], output }, adjoint, graph) {
    if (typeof adjoint !== "number") throw new GraphError("unsupported", "the loss must be a scalar");
    const gradient = graph.add("softmaxCrossEntropyGrad", [output, logits!]);
    return [adjoint === 1 ? gradient : gradient.scale(adjoint), undefined];
  },
};

/** If `dy` is exactly the gradient of a max pool over `output`, its parts. */
function routedThroughPool(graph: Graph, dy: Tensor, output: Tensor):
  { dy: Tensor; pool: Tensor; attributes: Record<string, unknown> } | undefined {
  const node = graph.nodes[dy.id]!;
  if (node.op !== "maxPoolGrad" || node.inputs[2] !== output.id) return undefined;
  return {
    dy: graph.tensor(node.inputs[0]!), pool: graph.tensor(node.inputs[1]!), attributes: { ...node.attributes },
  };
}

/**
 * Appends the gradient of the scalar `loss` for each of `wrt`; undefined where the loss does not
 * depend on it. Only paths that lead to `wrt` are differentiated, so the first layer gets no dX.
 */
export function gradients(loss: Tensor, wrt: readonly Tensor[]): (Tensor | undefined)[] {
  const graph = loss.graph;
  if (loss.shape.length !== 0) {
    throw new GraphError("shape", "a loss must be a scalar", { op: loss.op, node: loss.name, shapes: [loss.shape] });
  }
  const last = loss.id;
  const leadsToWanted = new Uint8Array(last + 1);
  for (const target of wrt) if (target.id <= last) leadsToWanted[target.id] = 1;
  for (let id = 0; id <= last; id++) {
    if (graph.nodes[id]!.inputs.some((input) => leadsToWanted[input] === 1)) leadsToWanted[id] = 1;
  }
  const adjoints = new Map<number, Adjoint>([[loss.id, 1]]);
  for (let id = last; id >= 0; id--) {
    const adjoint = adjoints.get(id);
    const node = graph.nodes[id]!;
    if (adjoint === undefined || node.inputs.length === 0 || leadsToWanted[id] === 0) continue;
    const rule = Object.hasOwn(RULES, node.op) ? RULES[node.op] : undefined;
    if (rule === undefined) {
      throw new GraphError("unsupported", "has no gradient", { op: node.op, node: node.name, shapes: node.inputs.map((input) => graph.nodes[input]!.shape) })
        .located(graph.positionOf(id));
    }
    const wanted = node.inputs.map((input) => leadsToWanted[input] === 1);
    const flowing = graph.colocateWith(graph.tensor(id), () => rule({
      inputs: node.inputs.map((input) => graph.tensor(input)), output: graph.tensor(id),
      attributes: { ...node.attributes },
    }, adjoint, graph, wanted));
    flowing.forEach((value, position) => {
      if (value === undefined || !wanted[position]) return;
      const input = node.inputs[position]!;
      const before = adjoints.get(input);
      adjoints.set(input, before === undefined ? value : sum(before, value));
    });
  }
  return wrt.map((target) => {
    const adjoint = adjoints.get(target.id);
    return typeof adjoint === "number" ? undefined : adjoint;
  });
}

function sum(a: Adjoint, b: Adjoint): Adjoint {
  if (typeof a === "number" && typeof b === "number") return a + b;
  const first = tensor(a);
  return first.graph.colocateWith(first, () => first.add(tensor(b)));
}
