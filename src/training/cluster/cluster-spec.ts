/**
 * Owns: which tasks a cluster has and where they listen: `train.ClusterSpec({ ps, worker })` of the
 * white paper, 2.8. Immutable; every task of a cluster holds the same description.
 */
import { TrainingError } from "../errors.js";

/** Job name ("ps", "worker", "standby", ...) -> addresses of its tasks. */
export type ClusterDefinition = Readonly<Record<string, readonly string[]>>;

const JOB = /^[a-z][a-z0-9_-]{0,31}$/;
/** Host and port, a bracketed IPv6 address and port, or a ZeroMQ endpoint. */
const ADDRESS = /^((tcp:\/\/)?([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):\d{1,5}|ipc:\/\/\/?[\w./-]{1,100}|inproc:\/\/[\w./-]{1,100})$/;
/** One cluster is one task's group of nodes; more than this is a configuration error. */
export const CLUSTER_TASKS_MAX = 4096;

export interface TaskPlace {
  job: string;
  task: number;
  address: string;
}

export class ClusterSpec {
  private readonly jobsByName = new Map<string, readonly string[]>();

  constructor(definition: ClusterDefinition) {
    let count = 0;
    for (const [job, addresses] of Object.entries(definition)) {
      if (!JOB.test(job)) {
        throw new TrainingError("cluster", `"${job}" is no job name (lower-case letters, digits, _ and -)`, { job });
      }
      if (!Array.isArray(addresses)) {
        throw new TrainingError("cluster", `job "${job}" must be a list of addresses`, { job });
      }
      for (const address of addresses as unknown[]) {
        const port = typeof address === "string" ? Number(/:(\d{1,5})$/.exec(address)?.[1] ?? 1) : NaN;
        if (typeof address !== "string" || !ADDRESS.test(address) || port < 1 || port > 65_535) {
          throw new TrainingError("cluster", `${JSON.stringify(address)} of job "${job}" is no address; expected ` +
            "host:port, tcp://host:port or ipc:///path", { job, address });
        }
      }
      count += addresses.length;
      this.jobsByName.set(job, Object.freeze([...addresses]));
    }
    if (count > CLUSTER_TASKS_MAX) {
      throw new TrainingError("cluster", `a cluster has at most ${CLUSTER_TASKS_MAX} tasks, got ${count}`);
    }
    const all = this.tasks().map(({ address }) => address);
    const twice = all.find((address, i) => all.indexOf(address) !== i);
    if (twice !== undefined) {
      throw new TrainingError("cluster", `two tasks share the address ${twice}`, { address: twice });
    }
  }

  get jobs(): string[] { return [...this.jobsByName.keys()]; }

  taskCount(job: string): number { return this.addresses(job).length; }

  addresses(job: string): readonly string[] {
    const addresses = this.jobsByName.get(job);
    if (addresses === undefined) {
      throw new TrainingError("cluster", `the cluster has no job "${job}"; it has ${this.jobs.join(", ") || "none"}`, { job });
    }
    return addresses;
  }

  taskAddress(job: string, task: number): string {
    const address = this.addresses(job)[task];
    if (address === undefined) {
      throw new TrainingError("cluster", `job "${job}" has ${this.taskCount(job)} tasks, there is no task ${task}`, { job, task });
    }
    return address;
  }

  tasks(): TaskPlace[] {
    return [...this.jobsByName].flatMap(([job, addresses]) =>
      addresses.map((address, task) => ({ job, task, address })));
  }

  toJSON(): ClusterDefinition { return Object.fromEntries(this.jobsByName); }
}
