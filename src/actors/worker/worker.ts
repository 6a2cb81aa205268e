// Owns the worker actor: proves its power, pledges for tasks, trains, hands in receipts, deletes the data.
// Invariant: a shard's key and plaintext live only while its task runs; after `finish` nothing of the task
// is left on this node but the signed deletion receipt on the chain.
import { behavior, Refusal, type System, type Ref, type Peer } from "../../runtime/index.js";
import { type Device } from "../../device/device.js";
import { parseJob, TrainStep, compileStep, MODELS } from "../../training/index.js";
import { answerChallenge } from "../../scheduler/index.js";
import { type Transactor } from "../chain-node/transactor.js";
import { MasterProtocol } from "../master/protocol.js";
import { PARAMETER_SERVER_ACTOR, ParameterServerProtocol } from "../parameter-server/protocol.js";
import { taskMarket } from "../market.js";
import { TaskData, type TaskDataModules } from "./task-data.js";
import { TaskRun } from "./task-run.js";
import { WorkerProtocol } from "./protocol.js";

/** Tasks a worker takes at a time: its device is one. */
const TASKS_MAX = 1;

export interface WorkerModules extends TaskDataModules {
  system: System;
  device: Device;
  master: () => Ref<typeof MasterProtocol>;
  masterNodeId: string;
  connect: (address: { endpoint: string; serverKey: string }) => Promise<Peer>;
  transactor: Transactor;
  now: () => number;
}

interface Running {
  abort: AbortController;
  data: TaskData;
  done: Promise<void>;
}
