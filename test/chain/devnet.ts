// Test bench: a devnet of n validators with known keys, a clock that the test moves, and signed transactions.
import { privateKeyToAccount, type PrivateKeyAccount } from "viem/accounts";
import { Chain, type ChainOptions, type Producer, type ProducedBlock } from "../../src/chain/chain.js";
import { createDevnetGenesis, type DevnetOptions, type Genesis } from "../../src/chain/genesis.js";
import { createMemoryStore } from "../../src/chain/store/memory-store.js";
import { blsPublicKey, blsSecretKeyFromSeed } from "../../src/chain/crypto/vrf.js";
import { addressOfPrivateKey, signDigest } from "../../src/chain/crypto/signature.js";
import { encodeBlock, type Block } from "../../src/chain/block/block.js";
import { headerDigest, sealHeader, type HeaderFields } from "../../src/chain/block/header.js";
import { fromHex, keccak, toHex, utf8 } from "../../src/chain/bytes.js";

export const TSR = 10n ** 18n;
export const CHAIN_ID = 7_357;
export const GENESIS_MS = 1_800_000_000_000;

export interface Party extends Producer {
  privateKey: Uint8Array;
  account: PrivateKeyAccount;
}

export function party(label: string): Party {
  const privateKey = keccak(utf8(`party ${label}`));
  const address = addressOfPrivateKey(privateKey);
  return {
    privateKey, address, blsSecretKey: blsSecretKeyFromSeed(keccak(utf8(`bls ${label}`))),
    sign: (digest) => signDigest(digest, privateKey), account: privateKeyToAccount(toHex(privateKey)),
  };
}

export const alice = party("alice");
export const bob = party("bob");
export const carol = party("carol");

export function genesisFor(validators: Party[], options: Partial<DevnetOptions> = {}): Genesis {
  return createDevnetGenesis({
    chainId: CHAIN_ID, timestampMs: GENESIS_MS,
    validators: validators.map((each) => ({
      address: toHex(each.address), blsPublicKey: blsPublicKey(each.blsSecretKey), stake: 1_000n * TSR,
    })),
    allocations: [alice, bob, carol].map((each) => ({ address: toHex(each.address), amount: 1_000_000n * TSR })),
    ...options,
  });
}

export function openChain(genesis: Genesis, options: Partial<ChainOptions> = {}): Promise<Chain> {
  return Chain.open({ store: createMemoryStore(), genesis, ...options });
}

/** Moves time to the producer's next authorised moment and produces. */
export async function produceNext(chain: Chain, producer: Producer, fromMs?: number): Promise<ProducedBlock> {
  let nowMs = fromMs ?? chain.head.timestampMs;
  for (let attempt = 0; attempt < 100; attempt++) {
    nowMs = chain.nextAttemptMs(nowMs, producer);
    const produced = await chain.produce(nowMs, producer);
    if (produced) return produced;
    nowMs += chain.genesis.consensus.stepMs;
  }
  throw new Error("the producer was never authorised");
}

export interface TransferOptions {
  nonce: number;
  to?: Uint8Array;
  value?: bigint;
  data?: `0x${string}`;
  gas?: bigint;
  maxFeePerGas?: bigint;
  maxPriorityFeePerGas?: bigint;
}

export async function signed(from: Party, options: TransferOptions): Promise<Uint8Array> {
  return fromHex(await from.account.signTransaction({
    type: "eip1559", chainId: CHAIN_ID, nonce: options.nonce, gas: options.gas ?? 21_000n, value: options.value ?? 0n,
    maxFeePerGas: options.maxFeePerGas ?? 10n ** 10n, maxPriorityFeePerGas: options.maxPriorityFeePerGas ?? 10n ** 9n,
    ...(options.to ? { to: toHex(options.to) } : {}), ...(options.data ? { data: options.data } : {}),
  }));
}

/** The same block with other header fields or another body, signed anew: what a hostile producer could send. */
export function forge(block: Block, changes: Partial<HeaderFields>, by: Party, body: Partial<Omit<Block, "header">> = {}): Uint8Array {
  const transactions = body.transactions ?? block.transactions;
  const certificates = body.certificates ?? block.certificates;
  const fields: HeaderFields = { ...block.header, ...changes };
  const header = sealHeader(fields, signDigest(headerDigest(fields, BigInt(CHAIN_ID)), by.privateKey));
  return encodeBlock({ header, transactions, certificates });
}

/** Gives a transaction to the chain's pool and fails loudly if it is refused. */
export async function submit(chain: Chain, raw: Uint8Array): Promise<Uint8Array> {
  const result = await chain.submitTransaction(raw);
  if ("error" in result) throw new Error(`${result.error.code}: ${result.error.message}`);
  return result.hash;
}
