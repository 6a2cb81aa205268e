// Owns one training run of a whole cluster in simulated time: real gradients, updates and rules over one
// ParameterStore, with the durations of a cluster that is described here.
// Invariants: every batch of every epoch counts exactly once, whatever the mode drops; the same seed gives
// the same run on the same instruction set.
import {
  BatchSampler, compileStep, createUpdateKernels, Evaluator, initialParameters, ParameterStore, TrainStep,
} from "../../../dist/training/index.js";
import { PhiloxStream } from "../../../dist/training/graph/philox.js";
import { VirtualClock } from "./virtual-clock.mjs";

/**
 * The cluster: each worker has a core of its own and a link of 1 Gbit/s to the server. A step of the CNN on 128
 * images takes 25 ms on one core of the reference machine; durations vary by 20 % (log-normal), and one step in a
 * hundred takes eight times as long (Dean and Barroso 2013 on such tails; Chen et al. 2016 measured theirs).
 */
export const CLUSTER = { stepMs: 25, deviation: 0.2, stragglerShare: 0.01, stragglerFactor: 8, bytesPerMs: 125_000 };

/** How many points a curve of losses has: each is the mean of the batches between two points. */
const CURVE_POINTS = 60;
const CURVE_TEST_ROWS = 2_000;

function durations(seed, worker) {
  const stream = new PhiloxStream(BigInt(seed), 0x5eed, worker + 1);
  return () => {
    const radius = Math.sqrt(-2 * Math.log(1 - stream.uniform()));
    const normal = radius * Math.cos(2 * Math.PI * stream.uniform());
    const isStraggler = stream.uniform() < CLUSTER.stragglerShare;
    return CLUSTER.stepMs * Math.exp(CLUSTER.deviation * normal) * (isStraggler ? CLUSTER.stragglerFactor : 1);
  };
}

/** Kernels whose work off the event loop stops the simulated time. */
function timed(kernels, clock) {
  return Object.fromEntries(Object.entries(kernels).map(([name, f]) => [name, (...args) => {
    const result = f(...args);
    return result instanceof Promise ? clock.busy(() => result) : result;
  }]));
}

class Cluster {
  constructor(device, problem, variant) {
    const { net, train, batchSize, epochs, seed } = problem;
    this.device = device;
    this.problem = problem;
    this.variant = variant;
    this.clock = new VirtualClock();
    const compiled = compileStep(net.graph, { loss: net.loss, correct: net.correct, batchSize });
    this.step = new TrainStep(device, compiled);
    this.sampler = new BatchSampler(train, { batchSize, seed });
    this.batches = Math.floor((epochs * train.labels.length) / batchSize);
    this.taken = 0;
    this.optimizer = variant.optimizer(this.batches);
    this.store = new ParameterStore({
      parameters: initialParameters(net.graph, seed), optimizer: this.optimizer, rules: variant.rules, verifyHashes: false,
    }, { kernels: timed(createUpdateKernels(device), this.clock) });
    this.evaluator = new Evaluator(device, net.graph, { loss: net.loss, correct: net.correct });
    this.done = { batches: 0, dropped: 0, bytesPushed: 0, bytesPulled: 0 };
    this.points = [];
    this.window = { loss: 0, correct: 0, batches: 0 };
    this.evaluations = [];
  }

  /** The next batches nobody has taken, at most `count`. */
  take(count) {
    const first = this.taken;
    this.taken = Math.min(this.batches, first + count);
    return Array.from({ length: this.taken - first }, (_, i) => first + i);
  }

  async pull() {
    const { version, parameters } = this.store.pull();
    this.done.bytesPulled += parameters.byteLength;
    await this.clock.sleep(parameters.byteLength / CLUSTER.bytesPerMs);
    return { version, parameters };
  }

  /** Loss, correct rows and gradient (a copy) of one batch. */
  gradientOf(parameters, index) {
    return this.clock.busy(async () => {
      this.sampler.seek(index);
      const batch = this.sampler.next();
      this.step.setParameters(parameters);
      const { loss, correct, gradient } = await this.step.run(batch.images, batch.labels);
      return { loss, correct, gradient: gradient.slice() };
    });
  }

  async count(results) {
    const { window, points, problem } = this;
    const every = Math.max(1, Math.floor(this.batches / CURVE_POINTS));
    for (const { loss, correct } of results) {
      window.loss += loss;
      window.correct += correct;
      window.batches += 1;
      this.done.batches += 1;
      const samples = this.done.batches * problem.batchSize;
      if (window.batches === every) {
        const rows = window.batches * problem.batchSize;
        points.push({ samples, timeMs: Math.round(this.clock.nowMs), loss: window.loss / window.batches, accuracy: window.correct / rows });
        Object.assign(window, { loss: 0, correct: 0, batches: 0 });
      }
      const isLast = this.done.batches === this.batches;
      if (isLast || this.done.batches % problem.evaluateEvery === 0) await this.evaluate(samples, isLast);
    }
  }

  /** On all test rows at the end; on the first few on the way, for the curve. */
  evaluate(samples, isLast) {
    const { images, labels } = this.problem.test;
    const rows = isLast ? labels.length : Math.min(labels.length, CURVE_TEST_ROWS);
    const pixels = images.length / labels.length;
    return this.clock.busy(async () => {
      const { accuracy, loss } = await this.evaluator.evaluate(
        this.store.pull().parameters, images.subarray(0, rows * pixels), labels.subarray(0, rows));
      this.evaluations.push({ samples, timeMs: Math.round(this.clock.nowMs), accuracy, loss });
    });
  }

  async work(index) {
    const worker = `worker-${index}`;
    const { epoch } = this.store.admit(worker);
    const duration = durations(this.problem.seed, index);
    let [batch] = this.take(1);
    for (let sequence = 0; batch !== undefined; sequence += 1) {
      const { version, parameters } = await this.pull();
      const { gradient, ...result } = await this.gradientOf(parameters, batch);
      await this.clock.sleep(duration());
      this.done.bytesPushed += gradient.byteLength;
      await this.clock.sleep(gradient.byteLength / CLUSTER.bytesPerMs);
      const answer = await this.store.push({ worker, epoch, sequence, baseVersion: version, gradient });
      if (answer.status === "applied") {
        await this.count([result]);
        [batch] = this.take(1);
      } else if (answer.status === "stale") this.done.dropped += 1;
      else throw new Error(`${this.variant.name}: a push was answered ${JSON.stringify(answer)}`);
    }
  }

  close() {
    this.evaluator.close();
    this.step.close();
  }
}

/**
 * `problem`: {net, train, test, batchSize, epochs, seed, evaluateEvery}; `variant`: {name, workers, rules,
 * optimizer: (batches) => descriptor}. Simulated milliseconds throughout.
 */
export async function trainSimulated(device, problem, variant) {
  const cluster = new Cluster(device, problem, variant);
  try {
    let ended = 0;
    const running = Promise.all(Array.from({ length: variant.workers }, (_, i) => cluster.work(i).then(() => { ended += 1; })));
    const failed = running.then(() => undefined, (error) => error);
    await cluster.clock.run();
    const stuck = new Error(`${variant.name}: ${variant.workers - ended} workers wait for an answer that never comes`);
    const error = await Promise.race([failed, new Promise((turn) => setImmediate(turn, stuck))]);
    if (error) throw error;
    if (cluster.done.batches !== cluster.batches) throw new Error(`${variant.name}: ${cluster.done.batches} of ${cluster.batches} batches counted`);
    const { staleness } = cluster.store.statistics;
    const last = staleness.findLastIndex((count) => count > 0);
    return {
      ...cluster.done, samples: cluster.batches * problem.batchSize, updates: cluster.store.version, timeMs: Math.round(cluster.clock.nowMs),
      accuracy: cluster.evaluations.at(-1).accuracy, staleness: staleness.slice(0, last + 1),
      points: cluster.points, evaluations: cluster.evaluations,
    };
  } finally {
    cluster.close();
  }
}
