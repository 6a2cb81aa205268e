/**
 * Owns the telling of a task's events to a person: lines for steps, the live bar for training.
 */
import type { ClientEvent } from "../actors/client/task-client.js";
import { formatTsr } from "./amounts.js";
import type { TrainingView, View } from "./run-view.js";

export interface TellOptions {
  epochs: number;
  nameOf: (address: string) => string;
  /** Called at each progress report with the share of samples done, 0..1. */
  onShare?: (share: number) => void;
}

/** A listener for TaskClient.train. */
export function createTaskTeller(view: View, options: TellOptions): (event: ClientEvent) => void {
  const state: TrainingView = {
    samplesDone: 0, samplesTotal: 1, epoch: 0, epochs: options.epochs, loss: null, trainAccuracy: null, testAccuracy: null,
    samplesPerSecond: 0, maxStaleness: 0, cost: "0",
  };
  return (event) => {
    switch (event.type) {
      case "cut":
        return view.detail(`${event.shards} shards, ${mib(event.plainBytes)} -> ${mib(event.storedBytes)} encrypted, ${event.seconds.toFixed(1)} s`);
      case "quote":
        return view.detail(`quote: ${giga(event.quote.quotedMultiplyAdds)} multiply-adds, escrow ${formatTsr(BigInt(event.quote.collateral))} TSR, `
          + `${formatTsr(BigInt(event.quote.minerCollateral))} TSR collateral a miner`);
      case "opened":
        return view.detail(`task ${event.taskId} is open on the chain, block ${event.block}`);
      case "evaluation":
        state.testAccuracy = event.accuracy;
        return view.training(state);
      case "progress": {
        const { progress } = event;
        Object.assign(state, {
          samplesDone: progress.samples, samplesTotal: event.samplesTotal, epoch: event.epoch, loss: progress.loss,
          trainAccuracy: progress.trainAccuracy, samplesPerSecond: event.samplesPerSecond,
          maxStaleness: progress.maxStaleness, cost: formatTsr(event.cost),
        });
        view.training(state);
        options.onShare?.(progress.samples / event.samplesTotal);
        return;
      }
      case "task":
        return tellTask(event.event, view, options.nameOf);
    }
  };
}

function tellTask(event: Extract<ClientEvent, { type: "task" }>["event"], view: View, nameOf: (address: string) => string): void {
  if (event.type === "matched") {
    view.detail(`matched: ${event.workers.map((worker) => `${worker.name} (${worker.gflops.toFixed(0)} GFLOP/s proven)`).join(", ")}`);
  } else if (event.type === "running") view.stage("Training");
  else if (event.type === "worker-lost") {
    view.detail(`${nameOf(event.worker)} is lost: its collateral is forfeit, ${event.samplesLeft} samples are left for the others`);
  } else if (event.type === "trained") {
    view.detail(`trained: ${event.version} updates, parameters ${event.parametersHash.slice(0, 18)}`);
  } else if (event.type === "settled") {
    view.trainingDone();
    view.detail(`settled in transaction ${event.transaction}`);
  }
}

const mib = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
const giga = (count: string): string => `${(Number(count) / 1e9).toFixed(0)} G`;
