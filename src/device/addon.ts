// Owns: the typed face of the native addon, exactly as native/addon exports it. Nothing else in the
// project may know the addon's shape.

export interface PlanTensor {
  name: string;
  dtype: "f32" | "i32" | "u8";
  shape: number[];
  /** From the arena's start, a multiple of 64; tensors may alias. */
  offsetBytes: number;
}

export type PlanOpName =
  | "gemm" | "bias_grad" | "relu" | "relu_grad" | "add" | "scale" | "u8_to_f32" | "finite"
  | "conv2d" | "conv2d_dx" | "conv2d_dw" | "maxpool" | "maxpool_grad" | "avgpool" | "avgpool_grad"
  | "gelu" | "gelu_grad" | "gelu_tanh" | "gelu_tanh_grad" | "silu" | "silu_grad" | "bias_add"
  | "layer_norm" | "layer_norm_grad" | "rms_norm" | "rms_norm_grad" | "softmax" | "softmax_grad"
  | "embedding" | "embedding_grad" | "attention" | "attention_grad" | "dropout" | "fill" | "global_norm" | "clip"
  | "mul" | "div" | "exp" | "log" | "sqrt" | "erf" | "sigmoid" | "copy" | "rope"
  | "softmax_xent" | "count_correct" | "sgd" | "momentum" | "adam" | "delay_compensate";

/** `in` and `out` are indices into `tensors`. Shapes and attributes: native/kernels/*.h. */
export interface PlanOp {
  op: PlanOpName;
  in: number[];
  out: number[];
  attrs?: Record<string, number>;
}

export interface PlanSpec {
  tensors: PlanTensor[];
  arenaBytes: number;
  ops: PlanOp[];
}

export type TensorArray = Float32Array | Int32Array | Uint8Array;

export interface Dims {
  m: number;
  n: number;
  k: number;
}

export interface Ticket {
  tile: number;
  ticket: Uint8Array;
}

export interface SgdOptions {
  learningRate: number;
  weightDecay?: number;
}
export interface MomentumOptions extends SgdOptions {
  momentum: number;
  nesterov?: boolean;
}
export interface AdamOptions extends SgdOptions {
  beta1: number;
  beta2: number;
  epsilon: number;
  /** 1 for the first update. `weightDecay` is decoupled (AdamW). */
  step: number;
}
export type UpdateKind = "sgd" | "momentum" | "adam";
export type UpdateOptions = SgdOptions | MomentumOptions | AdamOptions;

export interface SgemmOptions {
  transA?: boolean;
  transB?: boolean;
  bias?: Float32Array;
  relu?: boolean;
  /** Operands rounded to bf16, sums in fp32: fast on tensor cores, and not the same bits on every device. */
  bf16?: boolean;
}

export interface Cn2ScanOptions {
  /** Where the nonce lies in the data: `nonceBytes` (1 to 8) little-endian bytes at `nonceOffset`. */
  nonceOffset: number;
  nonceBytes: number;
  nonceStart: bigint;
  /** Nonces to try at most, from nonceStart on. */
  count: bigint;
  /** 32 bytes, a little-endian number: a hash wins when it is at most that. */
  target: Uint8Array;
  /** The search ends when so many hashes have won (1 to 4096). Default 1. */
  capacity?: number;
}

export interface Cn2ScanResult {
  /** In ascending order of nonces. */
  found: { nonce: bigint; hash: Uint8Array }[];
  /** All nonces in [nonceStart, nonceStart + tried) were hashed; `found` lists all their winners. */
  tried: bigint;
  /** What the scratchpads lie on: 2 MiB pages of the system's reserve, transparent ones, small pages, or a GPU. */
  pages: "reserved" | "transparent" | "small" | "device";
}

export type CompressionKind = "topk" | "int8" | "sign";

/** See native/kernels/compression.h. */
export interface CompressionOptions {
  /** topk: how many elements are sent, those of the largest magnitude. */
  entries?: number;
  /** int8 and sign: elements that share a scale, a multiple of 64 up to 65,536. Default 1024. */
  block?: number;
  /** Error feedback: added to the gradient first; then what the message leaves out. As long as the gradient. */
  residual?: Float32Array;
  /** int8: round at random, unbiased, by this key of Philox and the stream. Default: to the nearest. */
  seed?: bigint;
  /** 0 to 2^32 - 1, another one for each message under a seed. Default 0. */
  stream?: number;
}

export interface DecompressOptions {
  /** Factor of every element. Default 1. */
  scale?: number;
  /** Add to what `out` holds, instead of writing over it. */
  add?: boolean;
}

export type DigestName = "blake256" | "groestl256" | "jh256" | "skein512-256";

export interface NativePlan {
  write(tensor: number, data: TensorArray): void;
  read(tensor: number, out: TensorArray): void;
  /** The arena's memory on the CPU, undefined on a GPU. */
  arena(): ArrayBuffer | undefined;
  run(): Promise<void>;
  runSync(): void;
  readonly multiplyAdds: number;
  close(): void;
}

export type IsaName = "scalar" | "avx2" | "avx512" | "amx";

export interface NativeDeviceOptions {
  backend: "cpu" | "cuda";
  threads?: number;
  isa?: IsaName;
  gpu?: string;
}

export interface NativeDevice {
  describe(): { backend: "cpu" | "cuda"; isa: string; name: string; threads: number };
  createPlan(spec: PlanSpec): NativePlan;
  apply(kind: UpdateKind, vectors: Float32Array[], options: UpdateOptions): void;
  applyAsync(kind: UpdateKind, vectors: Float32Array[], options: UpdateOptions): Promise<void>;
  delayCompensate(g: Float32Array, wNow: Float32Array, wBase: Float32Array, lambda: number): void;
  isFinite(x: Float32Array): boolean;
  blake3(data: Uint8Array, key?: Uint8Array): Uint8Array;
  crmScan(a: Int8Array, bT: Int8Array, dims: Dims, key: Uint8Array, target: Uint8Array): { tickets: Ticket[] };
  crmScanAsync(a: Int8Array, bT: Int8Array, dims: Dims, key: Uint8Array, target: Uint8Array): Promise<{ tickets: Ticket[] }>;
  crmChallengeAsync(seed: Uint8Array, dims: Dims, key: Uint8Array, target: Uint8Array): Promise<{ tickets: Ticket[] }>;
  crmTile(aRows: Int8Array, bCols: Int8Array, k: number): Uint8Array;
  compress(kind: CompressionKind, x: Float32Array, options: CompressionOptions): Uint8Array;
  decompress(packed: Uint8Array, out: Float32Array, options: DecompressOptions): void;
  cn2Hash(data: Uint8Array): Uint8Array;
  cn2ScanAsync(data: Uint8Array, options: Cn2ScanOptions, stopped: boolean): { promise: Promise<Cn2ScanResult>; stop(): void };
  int8Gemm(a: Int8Array, bT: Int8Array, dims: Dims, out?: Int32Array): Int32Array;
  sgemm(a: Float32Array, b: Float32Array, dims: Dims, options: SgemmOptions): Float32Array;
  close(): void;
}

/** Memory that another process maps too; `sizeBytes` is a multiple of 4096. See native/addon/shared-memory.h. */
export interface NativeSharedSegment {
  place(): { pid: number; fd: number };
  header(): Uint8Array;
  write(offset: number, bytes: Uint8Array): void;
  lend(lengthBytes: number, onFree: () => void): ArrayBuffer;
  detach(buffer: ArrayBuffer): void;
  prefault(): Promise<void>;
  closeFile(): void;
  close(): void;
}

export interface CudaReport {
  compiled: boolean;
  available: boolean;
  /** Why not, in the driver's words; empty when available. */
  reason: string;
  driverVersion: number;
  runtimeVersion: number;
  devices: { id: string; name: string; index: number; sm: number; memoryBytes: number }[];
}

export interface Addon {
  readonly abi: number;
  NativeDevice: new (options: NativeDeviceOptions) => NativeDevice;
  digest(name: DigestName, data: Uint8Array): Uint8Array;
  probe(): { flags: string[]; cuda: CudaReport };
  /** With `header` (64 bytes) a new segment, with `pid` and `fd` that of another process. Linux only. */
  NativeSharedSegment?: new (
    options: { sizeBytes: number } & ({ header: Uint8Array } | { pid: number; fd: number }),
  ) => NativeSharedSegment;
}

/** Changes with native/kernels/backend.h: TESRA_ABI. */
export const ADDON_ABI = 1;
