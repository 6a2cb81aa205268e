// Owns: how the address of a record finds its actor. Invariant: an actor that is not open to peers cannot be told
// from one that does not exist, and a found one speaks a version that fits.
import type { Cell } from "../core/cell.js";
import type { CallError } from "../core/failure.js";
import type { SystemCore } from "../core/system.js";
import type { Address } from "./record.js";

export type Resolved = { readonly cell: Cell; readonly schema: unknown } | CallError;

export function resolveAddress(system: SystemCore, address: Address, kind: "call" | "cast"): Resolved {
  const { target, name } = address;
  const cell = system.roots.get(target) ?? system.cellAt(target);
  if (cell === undefined || !cell.isRemote) return { code: "stopped", message: `no actor ${target} on this node` };
  const { protocol } = cell;
  const isCompatible =
    protocol.name === address.protocol &&
    protocol.version >= address.compatibleFrom &&
    address.version >= protocol.compatibleFrom;
  if (!isCompatible) {
    const [theirs, ours] = [`${address.protocol}/${address.version}`, `${protocol.name}/${protocol.version}`];
    return { code: "protocol", message: `${target} speaks ${ours}, not ${theirs}` };
  }
  if (!Object.hasOwn(protocol[kind] as object, name)) {
    return { code: "protocol", message: `${protocol.name}/${protocol.version} has no ${kind} "${name}"` };
  }
  return { cell, schema: (protocol[kind] as Record<string, unknown>)[name] };
}
