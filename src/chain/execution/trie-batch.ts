// Owns many changes to a Merkle Patricia trie at once (yellow paper, appendix D). Changes are made on nodes in
// memory and every changed node is hashed once at the end; inserting one by one hashes each path anew, and hashing
// is what a block spends most of its time on. Keys are 32-byte hashes, so no key is a prefix of another and
// branches carry no value.
// Invariant: same root as inserting and deleting one by one, in any order.
import { RLP } from "@ethereumjs/rlp";
import { equals, keccak, keyOf, EMPTY } from "../bytes.js";
import { ChainError } from "../errors.js";

type Nested = Uint8Array | Nested[];
type Child = TrieNode | Uint8Array | undefined;

interface Leaf {
  kind: "leaf";
  path: Uint8Array;
  value: Uint8Array;
}
interface Extension {
  kind: "extension";
  path: Uint8Array;
  child: TrieNode | Uint8Array;
}
interface Branch {
  kind: "branch";
  children: Child[];
}
type TrieNode = Leaf | Extension | Branch;

export const EMPTY_TRIE_ROOT = keccak(Uint8Array.of(0x80));

/** Loads the encoding of a node by its hash. */
export type NodeLoader = (hashKey: string) => Uint8Array | undefined;

export class TrieBatch {
  private root: Child;

  constructor(rootHash: Uint8Array, private readonly load: NodeLoader) {
    this.root = keyOf(rootHash) === keyOf(EMPTY_TRIE_ROOT) ? undefined : rootHash;
  }

  /** `key` is already hashed; an undefined value deletes. */
  set(key: Uint8Array, value: Uint8Array | undefined): void {
    const path = nibblesOf(key);
    this.root = value === undefined ? this.remove(this.root, path, 0) : this.insert(this.root, path, 0, value);
  }

  /** Hashes what changed, hands each new node to `write`, and returns the root. */
  commit(write: (hashKey: string, encoded: Uint8Array) => void): Uint8Array {
    if (this.root === undefined) return EMPTY_TRIE_ROOT;
    if (this.root instanceof Uint8Array) return this.root;
    const encoded = RLP.encode(this.nested(this.root, write));
    const hash = keccak(encoded);
    write(keyOf(hash), encoded);
    return hash;
  }

  /** Returns `at` itself where nothing changes, so that what was only read is not hashed and written again. */
  private insert(at: Child, path: Uint8Array, depth: number, value: Uint8Array): TrieNode | Uint8Array {
    if (at === undefined) return { kind: "leaf", path: path.subarray(depth), value };
    const node = this.resolve(at);
    if (node.kind === "branch") {
      const nibble = path[depth]!;
      const before = node.children[nibble];
      const after = this.insert(before, path, depth + 1, value);
      if (after === before) return at;
      const children = node.children.slice();
      children[nibble] = after;
      return { kind: "branch", children };
    }
    const shared = sharedLength(node.path, path, depth);
    if (shared === node.path.length) {
      if (node.kind === "leaf") return equals(node.value, value) ? at : { kind: "leaf", path: node.path, value };
      const child = this.insert(node.child, path, depth + shared, value);
      return child === node.child ? at : { kind: "extension", path: node.path, child };
    }
    const children: Child[] = new Array<Child>(16).fill(undefined);
    const rest = node.path.subarray(shared + 1);
    children[node.path[shared]!] = node.kind === "leaf" ? { kind: "leaf", path: rest, value: node.value }
      : rest.length === 0 ? node.child : { kind: "extension", path: rest, child: node.child };
    children[path[depth + shared]!] = { kind: "leaf", path: path.subarray(depth + shared + 1), value };
    const branch: Branch = { kind: "branch", children };
    return shared === 0 ? branch : { kind: "extension", path: node.path.subarray(0, shared), child: branch };
  }

  private remove(at: Child, path: Uint8Array, depth: number): Child {
    if (at === undefined) return undefined;
    const node = this.resolve(at);
    if (node.kind === "branch") {
      const nibble = path[depth]!;
      const before = node.children[nibble];
      const after = this.remove(before, path, depth + 1);
      if (after === before) return at;
      const children = node.children.slice();
      children[nibble] = after;
      return after === undefined ? this.collapse(children) : { kind: "branch", children };
    }
    if (sharedLength(node.path, path, depth) < node.path.length) return at;
    if (node.kind === "leaf") return undefined;
    const after = this.remove(node.child, path, depth + node.path.length);
    if (after === node.child) return at;
    return after === undefined ? undefined : this.prefixed(node.path, after);
  }

  /** A branch that lost a child: with one left it is no branch any more. */
  private collapse(children: Child[]): TrieNode {
    let only = -1;
    for (let nibble = 0; nibble < 16; nibble++) {
      if (children[nibble] === undefined) continue;
      if (only >= 0) return { kind: "branch", children };
      only = nibble;
    }
    return this.prefixed(Uint8Array.of(only), children[only]!);
  }

  private prefixed(path: Uint8Array, child: TrieNode | Uint8Array): TrieNode {
    const node = this.resolve(child);
    if (node.kind === "branch") return { kind: "extension", path, child };
    const joined = new Uint8Array(path.length + node.path.length);
    joined.set(path);
    joined.set(node.path, path.length);
    return node.kind === "leaf" ? { kind: "leaf", path: joined, value: node.value }
      : { kind: "extension", path: joined, child: node.child };
  }

  private resolve(at: TrieNode | Uint8Array): TrieNode {
    if (!(at instanceof Uint8Array)) return at;
    const encoded = this.load(keyOf(at));
    if (encoded === undefined) throw new ChainError("corrupt", `the store lacks the state node ${keyOf(at)}`);
    return decodeNode(RLP.decode(encoded) as Nested[]);
  }

  private nested(node: TrieNode, write: (hashKey: string, encoded: Uint8Array) => void): Nested[] {
    if (node.kind === "leaf") return [hexPrefix(node.path, true), node.value];
    if (node.kind === "extension") return [hexPrefix(node.path, false), this.reference(node.child, write)];
    return [...node.children.map((child) => (child === undefined ? EMPTY : this.reference(child, write))), EMPTY];
  }

  private reference(child: TrieNode | Uint8Array, write: (hashKey: string, encoded: Uint8Array) => void): Nested {
    if (child instanceof Uint8Array) return child;
    const nested = this.nested(child, write);
    const encoded = RLP.encode(nested);
    if (encoded.length < 32) return nested;
    const hash = keccak(encoded);
    write(keyOf(hash), encoded);
    return hash;
  }
}

function decodeNode(items: Nested[]): TrieNode {
  if (items.length === 17) return { kind: "branch", children: items.slice(0, 16).map(decodeChild) };
  const encodedPath = items[0] as Uint8Array;
  const isLeaf = encodedPath[0]! >= 0x20;
  const nibbles = nibblesOf(encodedPath);
  const path = nibbles.subarray(nibbles[0]! & 1 ? 1 : 2);
  if (isLeaf) return { kind: "leaf", path, value: items[1] as Uint8Array };
  return { kind: "extension", path, child: decodeChild(items[1]!)! };
}

function decodeChild(item: Nested): Child {
  if (Array.isArray(item)) return decodeNode(item);
  return item.length === 0 ? undefined : item;
}

function nibblesOf(bytes: Uint8Array): Uint8Array {
  const nibbles = new Uint8Array(bytes.length * 2);
  for (let i = 0; i < bytes.length; i++) {
    nibbles[2 * i] = bytes[i]! >> 4;
    nibbles[2 * i + 1] = bytes[i]! & 15;
  }
  return nibbles;
}

function hexPrefix(nibbles: Uint8Array, isLeaf: boolean): Uint8Array {
  const isOdd = nibbles.length % 2;
  const out = new Uint8Array((nibbles.length >> 1) + 1);
  out[0] = (isLeaf ? 0x20 : 0) + (isOdd ? 0x10 + nibbles[0]! : 0);
  for (let i = 1, from = isOdd; i < out.length; i++, from += 2) out[i] = nibbles[from]! * 16 + nibbles[from + 1]!;
  return out;
}

/** How many nibbles of `own` agree with `path` from `depth` on. */
function sharedLength(own: Uint8Array, path: Uint8Array, depth: number): number {
  let shared = 0;
  while (shared < own.length && own[shared] === path[depth + shared]) shared += 1;
  return shared;
}
