// Owns the description of the machine that a measurement was made on.
import { cpus, totalmem } from "node:os";
import { probe } from "../dist/device/device.js";

/** CPU, threads, GPU and versions, as every benchmark's JSON carries them. */
export function machine(versions = {}) {
  const report = probe();
  return {
    cpu: cpus()[0]?.model ?? "unknown", threads: cpus().length, memoryGiB: Math.round(totalmem() / 2 ** 30),
    isa: report.isa ?? null,
    gpu: report.cuda?.devices?.map((device) => device.name).join(", ") || null,
    versions: { node: process.versions.node, ...versions },
  };
}
