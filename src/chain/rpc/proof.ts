// Owns eth_getProof (EIP-1186): what a light client checks against a state root it trusts. Invariant: bounded work:
// at most SLOTS_MAX slots a request; proofs of absence are proofs too.
import { Account, Address } from "@ethereumjs/util";
import { toBigInt, toHex } from "../bytes.js";
import type { Header } from "../block/header.js";
import type { Chain } from "../chain.js";
import { invalidParams } from "./errors.js";
import { quantity } from "./format.js";
import { addressParam, positionParam } from "./params.js";

/** A proof of one slot is some 2 KiB and some ten reads. */
const SLOTS_MAX = 1_024;

export async function getProof(chain: Chain, address: unknown, slots: unknown, at: Header): Promise<Record<string, unknown>> {
  const bytes = addressParam(address, "address");
  if (!Array.isArray(slots) || slots.length > SLOTS_MAX) return invalidParams(`storageKeys: expected an array of at most ${SLOTS_MAX}`);
  const keys = slots.map((slot: unknown) => ({ given: slot as string, bytes: positionParam(slot, "storageKeys") }));
  const state = chain.stateAt(at);
  const owner = new Address(bytes);
  const account = (await state.manager.getAccount(owner)) ?? new Account();
  const storageProof: unknown[] = [];
  for (const key of keys) {
    const value = await state.manager.getStorage(owner, key.bytes);
    const proof = await state.proveSlot(account.storageRoot, key.bytes);
    // the key comes back as it was given, as geth does: clients look it up by that
    storageProof.push({ key: key.given, value: quantity(toBigInt(value)), proof: proof.map((node) => toHex(node)) });
  }
  return {
    address: toHex(bytes), accountProof: (await state.proveAccount(bytes)).map((node) => toHex(node)),
    balance: quantity(account.balance), codeHash: toHex(account.codeHash), nonce: quantity(account.nonce),
    storageHash: toHex(account.storageRoot), storageProof,
  };
}
