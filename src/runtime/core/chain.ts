// Owns: the chain of actors that wait for one another through calls. Invariant: a node names an actor and the very
// turn in which it made the call, so a call is a cycle only while that actor still waits in that turn.

import type { TraceContext } from "./trace.js";

export interface ChainNode {
  readonly actor: string; // globally unique: system incarnation + cell number
  readonly turn: number;
  readonly parent: ChainNode | undefined;
}

/** What travels with an async handler over its awaits. */
export interface TurnNode extends ChainNode {
  readonly trace: TraceContext | undefined;
}

/** Past this depth a chain is a runaway recursion between actors rather than a use. */
export const CHAIN_LENGTH_MAX = 64;

export function chainHolds(chain: ChainNode | undefined, actor: string, turn: number): boolean {
  for (let node = chain; node !== undefined; node = node.parent) {
    if (node.actor === actor && node.turn === turn) return true;
  }
  return false;
}

/** Flat form for the wire: [actor, turn, actor, turn, …], nearest first. */
export function flattenChain(chain: ChainNode | undefined): (string | number)[] {
  const flat: (string | number)[] = [];
  for (let node = chain; node !== undefined && flat.length < CHAIN_LENGTH_MAX * 2; node = node.parent) {
    flat.push(node.actor, node.turn);
  }
  return flat;
}

/** @returns undefined when the flat form is not a chain. */
export function parseChain(flat: unknown): { readonly chain: ChainNode | undefined } | undefined {
  if (!Array.isArray(flat) || flat.length % 2 !== 0 || flat.length > CHAIN_LENGTH_MAX * 2) return undefined;
  let chain: ChainNode | undefined;
  for (let i = flat.length - 2; i >= 0; i -= 2) {
    const actor: unknown = flat[i];
    const turn: unknown = flat[i + 1];
    if (typeof actor !== "string" || actor.length > 128 || typeof turn !== "number") return undefined;
    chain = { actor, turn, parent: chain };
  }
  return { chain };
}
