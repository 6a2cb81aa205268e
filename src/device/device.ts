// Owns: Device and Plan, the project's one way to numeric kernels; picks CUDA when it is there.
// Invariant: every failure of the native side leaves here as a DeviceError.
import type {
  AdamOptions, ArenaHead, Cn2ScanOptions, Cn2ScanResult, CompressionKind, CompressionOptions, CudaReport, DecompressOptions, DigestName, Dims, IsaName, MomentumOptions, NativeDevice, NativePlan, PlanOp, PlanSpec,
  PlanTensor, SgdOptions, SgemmOptions, TensorArray, Ticket, UpdateKind, UpdateOptions,
} from "./addon.js";
import { DeviceError, guard, guardAsync } from "./device-error.js";
import { addonPath, buildStamp, loadAddon } from "./load-addon.js";
import { opTimings, type OpTiming } from "./plan-profile.js";

export type * from "./addon.js";
export type { OpTensor, OpTiming } from "./plan-profile.js";
export { DeviceError, type DeviceErrorCode } from "./device-error.js";

export interface DeviceOptions {
  /** auto: CUDA when a device can be opened, else the CPU. */
  backend?: "cpu" | "cuda" | "auto";
  /** CPU threads; default: as many as the process may run on. */
  threads?: number;
  /** A visible GPU's index or id ("GPU-…", "MIG-…"); default: the first. */
  gpu?: string;
  /** For tests: never faster than the default, always the same bits. */
  isa?: IsaName;
}

export interface DeviceReport {
  addon: { path: string; loaded: boolean; error?: { code: string; message: string; hint: string }; builder?: string };
  isa?: string;
  flags: string[];
  threads?: number;
  cuda: CudaReport;
}

/** One compiled list of operations over one arena; see PlanSpec. */
export class Plan {
  readonly multiplyAdds: number;
  readonly #native: NativePlan;
  readonly #tensors: readonly PlanTensor[];
  readonly #ops: readonly PlanOp[];

  constructor(native: NativePlan, { tensors, ops }: Pick<PlanSpec, "tensors" | "ops">) {
    this.#native = native;
    this.#tensors = tensors;
    this.#ops = ops;
    this.multiplyAdds = native.multiplyAdds;
  }

  write(tensor: number, data: TensorArray): void {
    guard(() => this.#native.write(tensor, data));
  }

  read(tensor: number, out: TensorArray): void {
    guard(() => this.#native.read(tensor, out));
  }

  /** The tensor's own memory on the CPU (valid as long as it is referenced), undefined on a GPU. */
  view(tensor: number): TensorArray | undefined {
    const t = this.#tensors[tensor];
    if (!t) throw new DeviceError("argument", `The plan has ${this.#tensors.length} tensors; there is no tensor ${tensor}.`);
    const length = t.shape.reduce((product, size) => product * size, 1);
    const arena = guard(() => this.#native.arena());
    if (!arena) return undefined;
    if (t.dtype === "f32") return new Float32Array(arena, t.offsetBytes, length);
    if (t.dtype === "i32") return new Int32Array(arena, t.offsetBytes, length);
    return new Uint8Array(arena, t.offsetBytes, length);
  }

  /**
   * Other operations over the same arena, which lives as long as one of its plans does. `spec` has this
   * plan's arenaBytes; siblings run one at a time.
   */
  sibling(spec: PlanSpec): Plan {
    return new Plan(guard(() => this.#native.sibling(spec)), described(spec));
  }

  /** Off the event loop; a second run before the first has ended is a "busy" DeviceError. */
  run(): Promise<void> {
    return guardAsync(this.#native.run());
  }

  /**
   * A run that also times each operation, in their order. Other runs pay nothing for it. On a GPU the operations
   * are launched one by one between events, not as one graph: their times are right, the gaps between are longer.
   */
  async profile(): Promise<OpTiming[]> {
    return opTimings({ ops: this.#ops, tensors: this.#tensors }, await guardAsync(this.#native.profile()));
  }

  runSync(): void {
    guard(() => this.#native.runSync());
  }

  close(): void {
    this.#native.close();
  }
}

/** A copy that the caller cannot change any more. */
const described = (spec: PlanSpec): Pick<PlanSpec, "ops" | "tensors"> => ({
  tensors: spec.tensors.map((t) => ({ ...t, shape: [...t.shape] })),
  ops: spec.ops.map((each) => ({ ...each, in: [...each.in], out: [...each.out] })),
});

export class Device {
  readonly backend: "cpu" | "cuda";
  /** "scalar", "avx2", "avx512", "amx", or "sm_90" and the like. */
  readonly isa: string;
  readonly threads: number;
  readonly name: string;
  readonly #native: NativeDevice;

  constructor(native: NativeDevice) {
    const d = native.describe();
    this.#native = native;
    this.backend = d.backend;
    this.isa = d.isa;
    this.threads = d.threads;
    this.name = d.name;
  }

  /** With `head` the arena begins in memory that another process maps too. */
  createPlan(spec: PlanSpec, head?: ArenaHead): Plan {
    return new Plan(guard(() => this.#native.createPlan(spec, head)), described(spec));
  }

  sgd(p: Float32Array, g: Float32Array, o: SgdOptions): void {
    guard(() => this.#native.apply("sgd", [p, g], o));
  }

  momentum(p: Float32Array, g: Float32Array, m: Float32Array, o: MomentumOptions): void {
    guard(() => this.#native.apply("momentum", [p, g, m], o));
  }

  adam(p: Float32Array, g: Float32Array, m: Float32Array, v: Float32Array, o: AdamOptions): void {
    guard(() => this.#native.apply("adam", [p, g, m, v], o));
  }

  /** The vectors (parameters, gradient, moments) must not be touched until the promise settles. */
  applyAsync(kind: UpdateKind, vectors: Float32Array[], o: UpdateOptions): Promise<void> {
    return guardAsync(this.#native.applyAsync(kind, vectors, o));
  }

  /**
   * One step from `from` (parameters, gradient, moments) to `to` (parameters, moments), all in host memory, none of it
   * touched until the promise settles. Resolves to the gradient's largest magnitude: NaN or infinity where it holds one.
   */
  updateAsync(kind: UpdateKind, from: readonly Float32Array[], to: readonly Float32Array[], o: UpdateOptions): Promise<number> {
    return guardAsync(this.#native.updateAsync(kind, from, to, o));
  }

  /** out[i] = the sum of the vectors' [i] in float64, in their order, over their number; at most 1,024 vectors. */
  meanAsync(vectors: readonly Float32Array[], out: Float32Array): Promise<void> {
    return guardAsync(this.#native.meanAsync(vectors, out));
  }

  /** The largest magnitude; NaN or infinity where x holds one. */
  largestAsync(x: Float32Array): Promise<number> {
    return guardAsync(this.#native.largestAsync(x));
  }

  delayCompensateAsync(g: Float32Array, wNow: Float32Array, wBase: Float32Array, lambda: number): Promise<void> {
    return guardAsync(this.#native.delayCompensateAsync(g, wNow, wBase, lambda));
  }

  /** g += lambda * g * g * (wNow - wBase), in place. */
  delayCompensate(g: Float32Array, wNow: Float32Array, wBase: Float32Array, lambda: number): void {
    guard(() => this.#native.delayCompensate(g, wNow, wBase, lambda));
  }

  isFinite(x: Float32Array): boolean {
    return guard(() => this.#native.isFinite(x));
  }

  /**
   * A gradient as a message of fewer bytes: its largest elements, int8 with a scale a block, signs with a mean
   * magnitude a block, or half precision. With `residual`, what is left out is kept there for the next one (error feedback).
   */
  compress(kind: CompressionKind, x: Float32Array, options: CompressionOptions = {}): Uint8Array {
    return guard(() => this.#native.compress(kind, x, options));
  }

  /** Writes or adds `scale` times the message's gradient. A message that is not one of out.length elements throws, and nothing is written. */
  decompress(packed: Uint8Array, out: Float32Array, options: DecompressOptions = {}): void {
    guard(() => this.#native.decompress(packed, out, options));
  }

  /** compress off the event loop: x and the residual must not be touched until the promise settles. */
  compressAsync(kind: CompressionKind, x: Float32Array, options: CompressionOptions = {}): Promise<Uint8Array> {
    return guardAsync(this.#native.compressAsync(kind, x, options));
  }

  decompressAsync(packed: Uint8Array, out: Float32Array, options: DecompressOptions = {}): Promise<void> {
    return guardAsync(this.#native.decompressAsync(packed, out, options));
  }

  blake3Async(data: Uint8Array): Promise<Uint8Array> {
    return guardAsync(this.#native.blake3Async(data));
  }

  /** 32 bytes; keyed mode with a 32-byte key. */
  blake3(data: Uint8Array, key?: Uint8Array): Uint8Array {
    return guard(() => this.#native.blake3(data, key));
  }

  /** All winning tiles of (M x K) times (N x K) transposed, ascending. */
  crmScan(a: Int8Array, bT: Int8Array, dims: Dims, ticketKey: Uint8Array, target: Uint8Array): { tickets: Ticket[] } {
    return guard(() => this.#native.crmScan(a, bT, dims, ticketKey, target));
  }

  /** The matrices are copied first, so they may be refilled at once. */
  crmScanAsync(a: Int8Array, bT: Int8Array, dims: Dims, ticketKey: Uint8Array, target: Uint8Array): Promise<{ tickets: Ticket[] }> {
    return guardAsync(this.#native.crmScanAsync(a, bT, dims, ticketKey, target));
  }

  /** crmScanAsync of the matrices that a challenge's 32-byte seed stands for (docs/protocol.md), made by the device. */
  crmChallengeAsync(seed: Uint8Array, dims: Dims, ticketKey: Uint8Array, target: Uint8Array): Promise<{ tickets: Ticket[] }> {
    return guardAsync(this.#native.crmChallengeAsync(seed, dims, ticketKey, target));
  }

  /** The 64-byte transcript of one tile: 8 rows of A and 16 columns of B, each of length k. */
  crmTile(aRows: Int8Array, bCols: Int8Array, k: number): Uint8Array {
    return guard(() => this.#native.crmTile(aRows, bCols, k));
  }

  /**
   * CN2 (CryptoNight variant 2) of at most 2^20 bytes: 32 bytes. One hash takes some 20 ms of a core and 2 MiB of
   * memory. Source: CryptoNote standard 008; Monero's variant 2 of 2018.
   */
  cn2Hash(data: Uint8Array): Uint8Array {
    return guard(() => this.#native.cn2Hash(data));
  }

  /**
   * Searches for nonces whose CN2 hash meets the target, on all threads. The device does nothing else meanwhile.
   * An abort ends the search within two hashes' time; what was tried and found by then is the result.
   */
  async cn2Scan(data: Uint8Array, options: Cn2ScanOptions & { signal?: AbortSignal }): Promise<Cn2ScanResult> {
    const { signal } = options;
    const { promise, stop } = guard(() => this.#native.cn2ScanAsync(data, options, signal?.aborted === true));
    signal?.addEventListener("abort", stop);
    try {
      return await guardAsync(promise);
    } finally {
      signal?.removeEventListener("abort", stop);
    }
  }

  /** `out`, m x n, is returned when given; fresh memory costs as much as the product at AMX speed. */
  int8Gemm(a: Int8Array, bT: Int8Array, dims: Dims, out?: Int32Array): Int32Array {
    return guard(() => this.#native.int8Gemm(a, bT, dims, out));
  }

  sgemm(a: Float32Array, b: Float32Array, dims: Dims, options: SgemmOptions = {}): Float32Array {
    return guard(() => this.#native.sgemm(a, b, dims, options));
  }

  close(): void {
    this.#native.close();
  }
}

const NO_CUDA: CudaReport = { compiled: false, available: false, reason: "the native addon is not loaded", driverVersion: 0, runtimeVersion: 0, devices: [] };

/** One of the four SHA-3 finalists that end a CN2 hash: 32 bytes. */
export function digest(name: DigestName, data: Uint8Array): Uint8Array {
  return guard(() => loadAddon().digest(name, data));
}

export function openDevice(options: DeviceOptions = {}): Device {
  const { backend = "auto", threads, gpu, isa } = options;
  const addon = loadAddon();
  if (backend !== "auto" && backend !== "cpu" && backend !== "cuda")
    throw new DeviceError("argument", `The backend must be cpu, cuda or auto, but is ${String(backend)}.`);
  const chosen = backend === "auto" ? (isa === undefined && addon.probe().cuda.available ? "cuda" : "cpu") : backend;
  const native = { backend: chosen, ...(threads !== undefined && { threads }), ...(gpu !== undefined && { gpu }), ...(isa !== undefined && { isa }) };
  try {
    return new Device(guard(() => new addon.NativeDevice(native)));
  } catch (error) {
    if (!(error instanceof DeviceError) || chosen !== "cuda" || error.hint) throw error;
    throw new DeviceError(error.code, error.message, { hint: "Open the device with backend: \"cpu\", or see `supernet doctor` for what the GPU lacks.", cause: error });
  }
}

/** What `doctor` shows: never throws. */
export function probe(): DeviceReport {
  const path = addonPath();
  const stamp = buildStamp();
  const builder = stamp ? { builder: stamp.builder } : {};
  try {
    const addon = loadAddon();
    const { flags, cuda } = addon.probe();
    const report: DeviceReport = { addon: { path, loaded: true, ...builder }, flags, cuda };
    const cpu = openDevice({ backend: "cpu" });
    report.isa = cpu.isa;
    report.threads = cpu.threads;
    cpu.close();
    return report;
  } catch (error) {
    const e = error instanceof DeviceError ? error : new DeviceError("addon_load", String(error));
    return { addon: { path, loaded: false, error: { code: e.code, message: e.message, hint: e.hint }, ...builder }, flags: [], cuda: NO_CUDA };
  }
}
