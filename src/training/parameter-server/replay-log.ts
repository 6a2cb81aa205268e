/**
 * Owns: the re-execution of training from a snapshot and the log of what followed: every step is a
 * pure function of (parameters at its base, what its tag names), so the same log gives the same bits.
 * Invariant: a log that could not have been made by the rules, or by these gradients, throws.
 */
import { TrainingError } from "../errors.js";
import type { OptimizerDescriptor } from "../optimizer/descriptor.js";
import { updateRate, type TrainingRules } from "../optimizer/rules.js";
import { isCompressed, type CompressedGradient } from "./compressed-gradient.js";
import { bytesOf, ParameterStore, type StoreSnapshot } from "./parameter-store.js";
import type { UpdateKernels } from "./update-kernels.js";
import type { PushRecord, UpdateEntry } from "./update-log.js";

export interface ReplayOptions {
  optimizer: OptimizerDescriptor;
  rules: TrainingRules;
  /** Where the log begins: entries[0].position is its logPosition. */
  snapshot: StoreSnapshot;
  entries: readonly UpdateEntry[];
  /** Parameters of versions before the snapshot's, where the first entries' gradients were computed at such. */
  earlier?: ReadonlyMap<number, Float32Array>;
  /** Computes again what was pushed, at the parameters of its base (not to be changed). Taken over. */
  gradientOf(push: PushRecord, parameters: Float32Array): Promise<Float32Array | CompressedGradient>;
}

/**
 * The state after the last entry, bit for bit as on the server where the gradients' arithmetic is exact. Throws
 * TrainingError "replay" where an entry does not follow: order, rate, base, or a hash that the gradient has not.
 */
export async function replayLog(options: ReplayOptions, modules: { kernels: UpdateKernels }): Promise<StoreSnapshot> {
  const { optimizer, rules, snapshot, entries } = options;
  const { kernels } = modules;
  const store = new ParameterStore({ parameters: new Float32Array(snapshot.parameters.length), optimizer, rules }, { kernels });
  store.restore(snapshot);
  const lastUse = new Map<number, number>();
  entries.forEach((entry, i) => { for (const { baseVersion } of entry.pushes) lastUse.set(baseVersion, i); });
  const versions = new Map(options.earlier);
  for (const [i, entry] of entries.entries()) {
    const { version, parameters: now } = store.pull();
    versions.set(version, now);
    const gradients: Float32Array[] = [];
    for (const push of entry.pushes) {
      const base = versions.get(push.baseVersion);
      if (base === undefined) throw wrong(entry, `the parameters of version ${push.baseVersion} are not at hand`);
      gradients.push(await pushedGradient(options, kernels, entry, push, base, now));
    }
    const staleness = version - (entry.pushes[0]?.baseVersion ?? version);
    const rate = updateRate(optimizer, rules, version, staleness);
    if (rate !== entry.learningRate) throw wrong(entry, `its rate is ${entry.learningRate}, by the rules ${rate}`);
    await store.replay(entry, await combined(rules, kernels, gradients, entry));
    for (const used of [...versions.keys()]) if ((lastUse.get(used) ?? -1) <= i) versions.delete(used);
  }
  return store.snapshot();
}

async function pushedGradient(
  { rules, gradientOf }: ReplayOptions, kernels: UpdateKernels, entry: UpdateEntry, push: PushRecord,
  base: Float32Array, now: Float32Array,
): Promise<Float32Array> {
  const computed = await gradientOf(push, base);
  const bytes = isCompressed(computed) ? computed.bytes : bytesOf(computed);
  if (push.hash !== undefined && !(await kernels.blake3(bytes)).every((byte, i) => byte === push.hash![i])) {
    throw wrong(entry, `worker "${push.worker}" pushed another gradient than "${push.tag}" gives`);
  }
  const gradient = isCompressed(computed) ? new Float32Array(base.length) : computed;
  if (isCompressed(computed)) await kernels.decode(computed, gradient);
  if (rules.mode === "async" && rules.delayCompensation && base !== now) {
    await kernels.delayCompensate(gradient, now, base, rules.delayCompensation.lambda);
  }
  return gradient;
}

async function combined(rules: TrainingRules, kernels: UpdateKernels, gradients: Float32Array[], entry: UpdateEntry): Promise<Float32Array> {
  const isRound = rules.mode === "sync" || rules.mode === "local";
  const first = gradients[0];
  if (first === undefined || (!isRound && gradients.length > 1)) throw wrong(entry, `${gradients.length} gradients make no update in ${rules.mode} mode`);
  if (!isRound) return first;
  const mean = new Float32Array(first.length);
  await kernels.mean(gradients, mean);
  return mean;
}

const wrong = (entry: UpdateEntry, message: string): TrainingError =>
  new TrainingError("replay", `entry ${entry.position} of the log cannot be replayed: ${message}`, { position: entry.position });
