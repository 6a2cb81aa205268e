export type PlanOp =
  | "gemm" | "bias_grad" | "relu" | "relu_grad" | "conv2d" | "conv2d_dx" | "conv2d_dw" | "maxpool"
  | "maxpool_grad" | "avgpool" | "avgpool_grad" | "softmax_xent" | "count_correct" | "add" | "scale"
  | "u8_to_f32" | "sgd" | "momentum" | "adam";
export interface PlanSpec {
  tensors: { name: string; dtype: "f32" | "i32" | "u8"; shape: number[]; offsetBytes: number }[];
  arenaBytes: number;
  ops: { op: PlanOp; in: number[]; out: number[]; attrs?: Record<string, number> }[];
}
