/**
 * Owns: the placement of between-graph replication: variables over the parameter servers, all else on the
 * worker (TensorFlow's tf.train.replica_device_setter). Invariant: a pure function of the sequence of nodes,
 * so replicas that build the same graph place the same variables on the same servers.
 */
import { TrainingError } from "../errors.js";
import { formatDevice, mergeDevices, parseDevice, type DeviceChooser } from "../graph/device-spec.js";
import { elementsOf } from "../graph/ops.js";
import type { ClusterSpec } from "./cluster-spec.js";

export interface ReplicaDeviceOptions {
  /** Its job "ps" has the variables. */
  cluster?: ClusterSpec;
  /** Instead of a cluster: how many parameter servers there are; with 0 variables stay on the worker. */
  ps?: number;
  /** For all else; default "/job:worker". */
  worker?: string;
  /** Which server is next: one after the other (default), or the one with the fewest elements so far. */
  psStrategy?: "round-robin" | "by-size";
}

export function replicaDeviceSetter(options: ReplicaDeviceOptions): DeviceChooser {
  const { cluster, worker = "/job:worker", psStrategy = "round-robin" } = options;
  const servers = options.ps ?? (cluster?.jobs.includes("ps") ? cluster.taskCount("ps") : 0);
  if (!Number.isInteger(servers) || servers < 0) {
    throw new TrainingError("option", `ps must be a number of servers, got ${String(options.ps)}`);
  }
  const workerDevice = parseDevice(worker);
  const loads = new Array<number>(servers).fill(0);
  return ({ op, shape, device }) => {
    // What the scopes inside have said comes first, as in TensorFlow.
    const said = parseDevice(device);
    if (op !== "variable" || servers === 0) return formatDevice(mergeDevices(workerDevice, said));
    if (said.job !== undefined) return device;
    const task = loads.indexOf(Math.min(...loads));
    loads[task]! += psStrategy === "by-size" ? elementsOf(shape) : 1;
    return formatDevice(mergeDevices({ job: "ps", task }, said));
  };
}
