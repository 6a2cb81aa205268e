// Owns what a person sees while a demo or a submitted task runs: stages, blocks as they come, a live bar.
// Invariant: everything goes to stderr, so stdout stays free for data; without a terminal there is no
// animation, only a line now and then.
import cliProgress from "cli-progress";
import { colorsFor } from "./colors.js";

export interface TrainingView {
  samplesDone: number;
  samplesTotal: number;
  epoch: number;
  epochs: number;
  loss: number | null;
  trainAccuracy: number | null;
  testAccuracy: number | null;
  samplesPerSecond: number;
  maxStaleness: number;
  /** Cost so far, TSR. */
  cost: string;
}

export interface View {
  stage(text: string): void;
  detail(text: string): void;
  block(block: { number: number; producer: string; transactions: number; certificates: number }): void;
  training(state: TrainingView): void;
  trainingDone(): void;
  close(): void;
}

/** Without a terminal a progress line appears at most this often. */
const LINE_EVERY_MS = 2_000;

const percent = (x: number | null): string => (x === null ? "   - " : `${(x * 100).toFixed(1)}%`);
const fixed = (x: number | null): string => (x === null ? "  -  " : x.toFixed(3));

function summary(state: TrainingView): string {
  return `epoch ${Math.min(state.epoch + 1, state.epochs)}/${state.epochs}  loss ${fixed(state.loss)}  `
    + `train ${percent(state.trainAccuracy)}  test ${percent(state.testAccuracy)}  `
    + `${Math.round(state.samplesPerSecond)} images/s  staleness <= ${state.maxStaleness}  cost ${state.cost} TSR`;
}

export function createView(options: { quiet?: boolean } = {}): View {
  if (options.quiet) return lineView(() => undefined);
  return process.stderr.isTTY ? terminalView() : lineView((text) => process.stderr.write(`${text}\n`));
}

function lineView(write: (text: string) => void): View {
  let lastMs = 0;
  let last: TrainingView | undefined;
  return {
    stage: write,
    detail: (text) => write(`  ${text}`),
    block: () => undefined,
    training: (state) => {
      last = state;
      const nowMs = Date.now();
      if (nowMs - lastMs < LINE_EVERY_MS) return;
      lastMs = nowMs;
      write(`  ${state.samplesDone}/${state.samplesTotal}  ${summary(state)}`);
    },
    trainingDone: () => {
      const done = last;
      last = undefined;
      if (done) write(`  ${done.samplesDone}/${done.samplesTotal}  ${summary(done)}`);
    },
    close: () => undefined,
  };
}

function terminalView(): View {
  const pc = colorsFor(process.stderr);
  let bars: cliProgress.MultiBar | undefined;
  let bar: cliProgress.SingleBar | undefined;
  const line = (text: string): void => {
    if (bars) bars.log(`${text}\n`);
    else process.stderr.write(`${text}\n`);
  };
  const end = (): void => {
    bars?.stop();
    bars = bar = undefined;
  };
  return {
    stage: (text) => line(`${pc.green("●")} ${pc.bold(text)}`),
    detail: (text) => line(`  ${pc.dim(text)}`),
    block: ({ number, producer, transactions, certificates }) =>
      line(`  ${pc.cyan("▪")} block ${pc.bold(String(number))} by ${producer}`
        + `${transactions ? `, ${transactions} transaction${transactions > 1 ? "s" : ""}` : ""}`
        + `${certificates ? `, ${certificates} certificate${certificates > 1 ? "s" : ""}` : ""}`),
    training: (state) => {
      if (!bars) {
        bars = new cliProgress.MultiBar({
          stream: process.stderr, hideCursor: true, clearOnComplete: false, fps: 8,
          format: `  {bar} {value}/{total}  {summary}`, barsize: 24,
        }, cliProgress.Presets.shades_classic);
        bar = bars.create(state.samplesTotal, 0, { summary: "" });
      }
      bar!.update(state.samplesDone, { summary: summary(state) });
    },
    trainingDone: end,
    close: end,
  };
}
