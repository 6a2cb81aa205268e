/**
 * Owns: checkpoints of a parameter store on disk: one directory each, made under a temporary name,
 * synced and renamed, with a manifest that holds the BLAKE3 of every file and of itself.
 * Invariant: a directory named checkpoint-* was complete when it was named; whatever is wrong with
 * it later is detected, and the one before is used.
 */
import { mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { bytesToHex, hexToBytes } from "@noble/hashes/utils.js";
import type { ParameterSlot } from "../compile/layout.js";
import { TrainingError } from "../errors.js";
import { decodeSafetensors, encodeSafetensors, type NamedTensor } from "../format/safetensors.js";
import { canonicalJson } from "../graph/canonical.js";
import type { StoreCounters, StoreSnapshot } from "./parameter-store.js";
import type { WorkerState } from "./worker-book.js";

export interface CheckpointOptions {
  directory: string;
  jobId: string;
  /** Names and places of the parameters, so that the file is readable by other tools. */
  parameters: readonly ParameterSlot[];
  /** Complete checkpoints kept; 2 is the least that survives a torn newest one. Default 3. */
  keep?: number;
}

export interface CheckpointModules {
  blake3(data: Uint8Array): Uint8Array;
}

export interface LoadedCheckpoint {
  snapshot: StoreSnapshot;
  /** As they were saved. */
  residuals: ReadonlyMap<string, Float32Array>;
  path: string;
}

const FORMAT = "tesra-checkpoint/1";
const MANIFEST = "manifest.json";
const PARAMETERS = "parameters.safetensors";
const OPTIMIZER = "optimizer.safetensors";
const RESIDUALS = "residuals.safetensors";
const GAPS = "alignment-gaps";
/** 12 digits sort as text: 10^12 versions. */
const NAME = /^checkpoint-(\d{12})$/;
const TEMPORARY = /^\.checkpoint-.*\.partial$/;
/** Workers are few and their windows short; a larger manifest is not ours. */
const MANIFEST_BYTES_MAX = 16 * 2 ** 20;

interface Manifest {
  format: string;
  jobId: string;
  version: number;
  parameterCount: number;
  logPosition: number;
  logDigest: string;
  workers: WorkerState[];
  counters: StoreCounters;
  files: Record<string, { bytes: number; blake3: string }>;
}

export class CheckpointDirectory {
  constructor(private readonly options: CheckpointOptions, private readonly modules: CheckpointModules) {}

  /**
   * Writes one checkpoint; on any failure (disk full) nothing of it remains. `residuals`: those of the compressors
   * (GradientCompressor.save) of workers that live with the store, by worker.
   */
  async save(snapshot: StoreSnapshot, residuals: ReadonlyMap<string, Float32Array> = new Map()): Promise<{ path: string }> {
    const { directory, keep = 3 } = this.options;
    const name = `checkpoint-${String(snapshot.version).padStart(12, "0")}`;
    const partial = join(directory, `.${name}.partial`), path = join(directory, name);
    const files = { [PARAMETERS]: this.encodeParameters(snapshot), [OPTIMIZER]: this.encodeMoments(snapshot), [RESIDUALS]: encodeResiduals(residuals) };
    const manifest: Manifest = {
      format: FORMAT, jobId: this.options.jobId, version: snapshot.version,
      parameterCount: snapshot.parameters.length, logPosition: snapshot.logPosition,
      logDigest: bytesToHex(snapshot.logDigest), workers: snapshot.workers, counters: snapshot.counters,
      files: Object.fromEntries(Object.entries(files).map(([file, bytes]) =>
        [file, { bytes: bytes.length, blake3: bytesToHex(this.modules.blake3(bytes)) }])),
    };
    try {
      await mkdir(directory, { recursive: true });
      await rm(partial, { recursive: true, force: true });
      await mkdir(partial);
      for (const [file, bytes] of Object.entries(files)) await writeSynced(join(partial, file), bytes);
      await writeSynced(join(partial, MANIFEST), new TextEncoder().encode(this.seal(manifest)));
      await syncDirectory(partial);
      await rm(path, { recursive: true, force: true }); // the same version again, after a resume
      await rename(partial, path);
      await syncDirectory(directory);
    } catch (error) {
      await rm(partial, { recursive: true, force: true }).catch(() => undefined);
      const { code, message } = error as NodeJS.ErrnoException;
      throw new TrainingError("checkpoint", code === "ENOSPC"
        ? `no space for a checkpoint in ${directory}; free some or choose another directory`
        : `cannot write a checkpoint to ${directory}: ${message}`, { path, errno: code });
    }
    for (const old of (await this.names()).slice(Math.max(2, keep))) {
      await rm(join(directory, old), { recursive: true, force: true });
    }
    return { path };
  }

  /** The newest checkpoint that is whole and of this job; `skipped` says what is wrong with newer ones. */
  async loadLatest(): Promise<{ loaded?: LoadedCheckpoint; skipped: { path: string; reason: string }[] }> {
    const skipped: { path: string; reason: string }[] = [];
    for (const name of await this.names()) {
      const path = join(this.options.directory, name);
      try {
        return { loaded: { ...await this.load(path), path }, skipped };
      } catch (error) {
        skipped.push({ path, reason: (error as Error).message });
      }
    }
    return { skipped };
  }

  /** Removes what an interrupted save left. */
  async sweep(): Promise<void> {
    const names = await readdir(this.options.directory).catch(() => [] as string[]);
    for (const name of names.filter((entry) => TEMPORARY.test(entry))) {
      await rm(join(this.options.directory, name), { recursive: true, force: true });
    }
  }

  /** Complete checkpoints, newest first. */
  private async names(): Promise<string[]> {
    try {
      return (await readdir(this.options.directory)).filter((name) => NAME.test(name)).sort().reverse();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
      throw error;
    }
  }

  private async load(path: string): Promise<Omit<LoadedCheckpoint, "path">> {
    const manifest = this.unseal(await readBounded(join(path, MANIFEST), MANIFEST_BYTES_MAX));
    const read = async (file: string): Promise<Map<string, NamedTensor>> => {
      const expected = manifest.files[file];
      if (expected === undefined) throw bad(`the manifest does not list ${file}`);
      const bytes = await readBounded(join(path, file), expected.bytes);
      if (bytes.length !== expected.bytes || bytesToHex(this.modules.blake3(bytes)) !== expected.blake3) {
        throw bad(`${file} does not match its hash`);
      }
      return decodeSafetensors(bytes).tensors;
    };
    const named = await read(PARAMETERS), moments = await read(OPTIMIZER), residuals = await read(RESIDUALS);
    const parameters = new Float32Array(manifest.parameterCount);
    for (const { name, offset, size } of this.options.parameters) {
      const data = named.get(name)?.data;
      if (data?.length !== size) throw bad(`the parameter "${name}" is missing or has another size`);
      parameters.set(data, offset);
    }
    const kept = moments.get(GAPS)?.data;
    moments.delete(GAPS);
    let cursor = 0;
    for (const [begin, end] of this.gaps(manifest.parameterCount)) {
      parameters.set(kept?.subarray(cursor, cursor + end - begin) ?? [], begin);
      cursor += end - begin;
    }
    const snapshot = {
      version: manifest.version, parameters,
      moments: [...moments.keys()].sort().map((name) => moments.get(name)!.data),
      logPosition: manifest.logPosition, logDigest: hexToBytes(manifest.logDigest),
      workers: manifest.workers, counters: manifest.counters,
    };
    return { snapshot, residuals: new Map([...residuals].map(([worker, { data }]) => [worker, data])) };
  }

  private encodeParameters(snapshot: StoreSnapshot): Uint8Array {
    const tensors = new Map<string, NamedTensor>();
    for (const { name, shape, offset, size } of this.options.parameters) {
      tensors.set(name, { shape, data: snapshot.parameters.subarray(offset, offset + size) });
    }
    return encodeSafetensors(tensors, { format: FORMAT, version: String(snapshot.version), job: this.options.jobId });
  }

  private encodeMoments(snapshot: StoreSnapshot): Uint8Array {
    const tensors = new Map<string, NamedTensor>(
      snapshot.moments.map((data, i) => [`moment${i}`, { shape: [data.length], data }]));
    const gaps = this.gaps(snapshot.parameters.length).flatMap(([begin, end]) => [...snapshot.parameters.subarray(begin, end)]);
    tensors.set(GAPS, { shape: [gaps.length], data: Float32Array.from(gaps) });
    return encodeSafetensors(tensors);
  }

  /** What lies between the parameters: zeros, unless a worker pushed there; kept to the bit. */
  private gaps(parameterCount: number): [number, number][] {
    const gaps: [number, number][] = [];
    let cursor = 0;
    for (const { offset, size } of this.options.parameters) {
      if (offset > cursor) gaps.push([cursor, offset]);
      cursor = offset + size;
    }
    if (parameterCount > cursor) gaps.push([cursor, parameterCount]);
    return gaps;
  }

  /** The manifest's text, with a digest over all the rest of it. */
  private seal(manifest: Manifest): string {
    const digest = bytesToHex(this.modules.blake3(new TextEncoder().encode(canonicalJson(manifest))));
    return canonicalJson({ ...manifest, digest });
  }

  private unseal(bytes: Uint8Array): Manifest {
    let parsed: Record<string, unknown>;
    try {
      parsed = JSON.parse(new TextDecoder().decode(bytes)) as Record<string, unknown>;
    } catch {
      throw bad("the manifest is torn (not JSON)");
    }
    const { digest, ...rest } = parsed;
    const manifest = rest as unknown as Manifest;
    if (digest !== bytesToHex(this.modules.blake3(new TextEncoder().encode(canonicalJson(manifest))))) {
      throw bad("the manifest does not match its digest");
    }
    if (manifest.format !== FORMAT) throw bad(`the format is ${manifest.format}, expected ${FORMAT}`);
    if (manifest.jobId !== this.options.jobId) throw bad(`it belongs to the job ${manifest.jobId}`);
    const last = this.options.parameters.at(-1);
    if (last !== undefined && manifest.parameterCount < last.offset + last.size) throw bad("it has fewer parameters than the job");
    return manifest;
  }
}

const encodeResiduals = (residuals: ReadonlyMap<string, Float32Array>): Uint8Array =>
  encodeSafetensors(new Map([...residuals].map(([worker, data]) => [worker, { shape: [data.length], data }])));

const bad = (message: string): TrainingError => new TrainingError("checkpoint", message);

async function writeSynced(path: string, bytes: Uint8Array): Promise<void> {
  const file = await open(path, "wx");
  try {
    await file.writeFile(bytes);
    await file.sync();
  } finally {
    await file.close();
  }
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, "r");
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

async function readBounded(path: string, bytesMax: number): Promise<Uint8Array> {
  const file = await open(path, "r").catch((error: Error) => { throw bad(`cannot open ${path}: ${error.message}`); });
  try {
    const { size } = await file.stat();
    if (size > bytesMax) throw bad(`${path} has ${size} bytes, expected at most ${bytesMax}`);
    return await file.readFile();
  } finally {
    await file.close();
  }
}
