// Owns a task's journal on the master's disk: what a restarted master needs to go on.
// Invariant: a file is whole or absent (temporary name, sync, rename); a task's file goes when nothing is left to do for it.
import { closeSync, fsyncSync, mkdirSync, openSync, readdirSync, readFileSync, renameSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import type { Meter, TaskJournal } from "../../scheduler/index.js";
import type { TaskEvent } from "../client/protocol.js";
import type { NodeAddress } from "../node/config.js";

export interface TaskRecord {
  version: 1;
  taskId: string;
  job: string;
  manifest: string;
  clientNodeId: string;
  parameterServer: NodeAddress;
  nextFence: number;
  /** The fence under which each worker was admitted. */
  fences: Record<string, number>;
  journal: TaskJournal;
  /** How it ended; its client may not have heard of it yet. */
  ended?: Extract<TaskEvent, { type: "settled" | "ended" }>;
  meter: ReturnType<Meter["snapshot"]>;
}

export class TaskFiles {
  constructor(private readonly dir: string) {
    mkdirSync(dir, { recursive: true, mode: 0o700 });
  }

  save(record: TaskRecord): void {
    const path = this.pathOf(record.taskId);
    const partial = `${path}.partial`;
    const file = openSync(partial, "w", 0o600);
    try {
      writeSync(file, JSON.stringify(record));
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    renameSync(partial, path);
  }

  remove(taskId: string): void {
    rmSync(this.pathOf(taskId), { force: true });
  }

  /** The open tasks of an earlier life; what cannot be read is said and left where it is. */
  load(warn: (text: string) => void): TaskRecord[] {
    return readdirSync(this.dir).filter((name) => /^\d+\.json$/.test(name)).flatMap((name) => {
      try {
        const record = JSON.parse(readFileSync(join(this.dir, name), "utf8")) as TaskRecord;
        if (record.version !== 1) throw new Error(`version ${String(record.version)}, expected 1`);
        return [record];
      } catch (error) {
        warn(`task file ${name} is not used: ${(error as Error).message}`);
        return [];
      }
    });
  }

  private pathOf(taskId: string): string {
    return join(this.dir, `${taskId}.json`);
  }
}
