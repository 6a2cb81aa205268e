/**
 * Owns: device strings: "/job:ps/task:0/gpu:1", any part of which may be left out, and how nested scopes
 * merge (TensorFlow's tf.device). Invariant: formatDevice(parseDevice(x)) is the canonical form of x, and
 * merging canonical forms gives a canonical form.
 */
import { GraphError, type Shape } from "../errors.js";

export interface DeviceSpec {
  job?: string;
  task?: number;
  kind?: "cpu" | "gpu";
  index?: number;
}

/** Chooses a device for a node that is about to be made; `device` is what the scopes inside have said. */
export type DeviceChooser = (node: { op: string; name: string; shape: Shape; device: string }) => string | null;

/** TensorFlow's long form of the last part, "/device:GPU:0", is read too. */
const DEVICE = /^(?:\/job:([a-z][a-z0-9_-]{0,31}))?(?:\/replica:0)?(?:\/task:(\d{1,5}))?(?:\/(?:device:)?(cpu|gpu|CPU|GPU)(?::(\d{1,3}))?)?$/;

export function parseDevice(text: string, where: { op?: string; node?: string } = {}): DeviceSpec {
  const match = typeof text === "string" ? DEVICE.exec(text) : null;
  if (match === null) {
    throw new GraphError("device", `${JSON.stringify(text)} is no device; expected a form like /job:ps/task:0, /gpu:1 or ` +
      "/job:worker/task:1/gpu:0", where);
  }
  const [, job, task, kind, index] = match;
  return {
    ...(job !== undefined && { job }), ...(task !== undefined && { task: Number(task) }),
    ...(kind !== undefined && { kind: kind.toLowerCase() as "cpu" | "gpu" }), ...(index !== undefined && { index: Number(index) }),
  };
}

export function formatDevice({ job, task, kind, index }: DeviceSpec): string {
  return (job === undefined ? "" : `/job:${job}`) + (task === undefined ? "" : `/task:${task}`) +
    (kind === undefined ? "" : `/${kind}${index === undefined ? "" : `:${index}`}`);
}

/** What `inner` leaves open is taken from `outer`; an index belongs to its kind. */
export function mergeDevices(outer: DeviceSpec, inner: DeviceSpec): DeviceSpec {
  const { index, ...place } = outer;
  const sameKind = inner.kind === undefined || inner.kind === outer.kind;
  return { ...place, ...(sameKind && index !== undefined && { index }), ...inner };
}

/**
 * The device of a new node under nested scopes, outermost first. As in TensorFlow, scopes act from the
 * innermost out: a string fills in what is still open, a chooser's answer replaces what there is (null:
 * leaves it), and a null scope hides those outside of it.
 */
export function placeNode(scopes: readonly (string | DeviceChooser | null)[], node: { op: string; name: string; shape: Shape }): string {
  let device: DeviceSpec = {};
  for (let i = scopes.length - 1; i >= 0; i--) {
    const scope = scopes[i]!;
    if (scope === null) break;
    const where = { op: node.op, node: node.name };
    if (typeof scope === "string") {
      device = mergeDevices(parseDevice(scope, where), device);
      continue;
    }
    const chosen = scope({ ...node, device: formatDevice(device) });
    if (chosen !== null) device = parseDevice(chosen, where);
  }
  return formatDevice(device);
}
