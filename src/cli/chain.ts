/**
 * Owns `supernet chain`: what a node knows, read over its JSON-RPC, and `verify`, which trusts
 * nobody and replays a store.
 */
import type { Command } from "commander";
import type { CliContext } from "./context.js";
import { OperationalError, UserError } from "./errors.js";
import type { ChainClient } from "./rpc.js";

/** What eth_getBlockByNumber answers with, as far as it is shown. */
interface RpcBlock {
  number: string; hash: string; parentHash: string; timestamp: string; miner: string;
  stateRoot: string; gasUsed: string; gasLimit: string; baseFeePerGas?: string; size?: string;
  transactions: (string | { hash: string })[];
}

interface RpcTransaction {
  hash: string; from: string; to: string | null; value: string; nonce: string; gas: string;
  blockNumber: string | null; blockHash: string | null; input: string; type?: string;
}

interface RpcReceipt {
  status: string; blockNumber: string; gasUsed: string; effectiveGasPrice?: string;
  contractAddress?: string | null; logs: unknown[];
}

/** The most that a node lists at once. */
const CERTIFICATES_MAX = 100;

export function register(program: Command, context: CliContext): void {
  const chain = program.command("chain")
    .description("read blocks, transactions, accounts and certificates")
    .addHelpText("after", "\nAll but verify ask the node at --rpc (default http://127.0.0.1:8545).");

  chain.command("status").description("head, finality and peers of a node")
    .addHelpText("after", "\nExample:\n  $ supernet chain status --rpc http://host:8545 -o json")
    .action(() => status(context));

  chain.command("block").argument("[block]", "number, hash, or latest, safe, finalized", "latest")
    .description("one block")
    .addHelpText("after", "\nExamples:\n  $ supernet chain block\n  $ supernet chain block 12 -o json")
    .action((id: string) => block(context, id));

  chain.command("tx").argument("<hash>", "transaction hash")
    .description("a transaction and its receipt")
    .addHelpText("after", "\nExample:\n  $ supernet chain tx 0x5c50...af31")
    .action((hash: string) => transaction(context, hash));

  chain.command("account").argument("<address>", "0x address")
    .description("balance, nonce and code size of an account")
    .addHelpText("after", "\nExample:\n  $ supernet chain account 0x0000000000000000000000000000000000001000")
    .action((address: string) => account(context, address));

  chain.command("certificates")
    .description("the newest proof-of-work certificates on the chain")
    .option("--count <n>", "how many", "20")
    .addHelpText("after", "\nExample:\n  $ supernet chain certificates --count 100 -o ndjson")
    .action((options: { count: string }) => certificates(context, options));

  chain.command("supply").description("issued, reserved and total TSR")
    .addHelpText("after", "\nExample:\n  $ supernet chain supply -o json")
    .action(() => supply(context));

  chain.command("verify").argument("[store]", "folder of a chain store; default <data-dir>/chain")
    .description("replay a store from genesis and compare every root")
    .requiredOption("--genesis <file>", "genesis file of the chain (JSON)")
    .addHelpText("after", `
The node that owns the store must be stopped: a store has one owner at a time.

Example:
  $ supernet chain verify ./run/pos-1/chain --genesis ./run/genesis.json`)
    .action((store: string | undefined, options: { genesis: string }) =>
      verify(context, store, options.genesis));
}

async function connect(context: CliContext): Promise<ChainClient> {
  const { connectRpc } = await import("./rpc.js");
  return connectRpc((await context.settings()).rpc);
}

async function status(context: CliContext): Promise<void> {
  const node = await connect(context);
  const chainId = await node.call<string>("eth_chainId"); // alone first: one sentence if it is down
  const [head, client, peers, syncing, safe, finalized] = await Promise.all([
    node.call<RpcBlock>("eth_getBlockByNumber", ["latest", false]),
    optional(node.call<string>("web3_clientVersion")),
    optional(node.call<string>("net_peerCount")),
    optional(node.call<unknown>("eth_syncing")),
    optional(node.call<RpcBlock | null>("eth_getBlockByNumber", ["safe", false])),
    optional(node.call<RpcBlock | null>("eth_getBlockByNumber", ["finalized", false])),
  ]);
  (await context.output()).record({
    node: node.url, client, chainId: number(chainId),
    height: number(head.number), hash: head.hash, time: time(head.timestamp), producer: head.miner,
    safe: safe ? number(safe.number) : undefined,
    finalized: finalized ? number(finalized.number) : undefined,
    peers: peers === undefined ? undefined : number(peers),
    syncing: syncing === undefined ? undefined : syncing !== false,
  });
}

async function block(context: CliContext, id: string): Promise<void> {
  const node = await connect(context);
  const byHash = /^0x[0-9a-fA-F]{64}$/.test(id);
  const tag = /^\d{1,15}$/.test(id) ? `0x${Number(id).toString(16)}` : id;
  if (!byHash && tag === id && !["latest", "safe", "finalized", "earliest"].includes(id)) {
    throw new UserError(`"${id}" is no block: expected a number, a hash of 0x and 64 hex digits, `
      + "latest, safe, finalized or earliest");
  }
  const found = await node.call<RpcBlock | null>(
    byHash ? "eth_getBlockByHash" : "eth_getBlockByNumber", [tag, false]);
  if (!found) throw new OperationalError(`the node at ${node.url} has no block ${id}`);
  (await context.output()).record({
    number: number(found.number), hash: found.hash, parent: found.parentHash,
    time: time(found.timestamp), producer: found.miner, stateRoot: found.stateRoot,
    gasUsed: number(found.gasUsed), gasLimit: number(found.gasLimit),
    baseFee: found.baseFeePerGas === undefined ? undefined : BigInt(found.baseFeePerGas),
    size: found.size === undefined ? undefined : number(found.size),
    transactions: found.transactions.map((tx) => (typeof tx === "string" ? tx : tx.hash)),
  });
}

async function transaction(context: CliContext, hash: string): Promise<void> {
  if (!/^0x[0-9a-fA-F]{64}$/.test(hash)) {
    throw new UserError(`"${hash}" is no transaction hash: expected 0x and 64 hex digits`);
  }
  const node = await connect(context);
  const tx = await node.call<RpcTransaction | null>("eth_getTransactionByHash", [hash]);
  if (!tx) throw new OperationalError(`the node at ${node.url} does not know transaction ${hash}`);
  const [receipt, head] = await Promise.all([
    node.call<RpcReceipt | null>("eth_getTransactionReceipt", [hash]),
    node.call<string>("eth_blockNumber"),
  ]);
  const { formatEther } = await import("viem");
  (await context.output()).record({
    hash: tx.hash, from: tx.from, to: tx.to ?? undefined,
    amount: formatEther(BigInt(tx.value)), unit: "TSR", nonce: number(tx.nonce),
    status: receipt ? (BigInt(receipt.status) === 1n ? "success" : "reverted") : "pending",
    block: receipt ? number(receipt.blockNumber) : undefined,
    confirmations: receipt ? number(head) - number(receipt.blockNumber) + 1 : 0,
    gasUsed: receipt ? number(receipt.gasUsed) : undefined,
    contract: receipt?.contractAddress ?? undefined,
    logs: receipt?.logs.length, input: tx.input,
  });
}

async function account(context: CliContext, address: string): Promise<void> {
  if (!/^0x[0-9a-fA-F]{40}$/.test(address)) {
    throw new UserError(`"${address}" is no address: expected 0x and 40 hex digits`);
  }
  const node = await connect(context);
  const balance = await node.call<string>("eth_getBalance", [address, "latest"]);
  const [nonce, code] = await Promise.all([
    node.call<string>("eth_getTransactionCount", [address, "latest"]),
    node.call<string>("eth_getCode", [address, "latest"]),
  ]);
  const { formatEther } = await import("viem");
  (await context.output()).record({
    address, balance: formatEther(BigInt(balance)), unit: "TSR", smallest: BigInt(balance),
    nonce: number(nonce), codeBytes: (code.length - 2) / 2,
  });
}

/** Answer of tesra_certificates; numbers are 0x quantities. */
interface RpcCertificates {
  count: string; multiplyAdds: string; usefulMultiplyAdds: string; pooled: string; target: string;
  recent: { blockNumber: string; certificate: string }[];
}

async function certificates(context: CliContext, options: { count: string }): Promise<void> {
  const { wholeNumber } = await import("./options.js");
  const count = wholeNumber("--count", options.count, 1, CERTIFICATES_MAX);
  const node = await connect(context);
  const answer = await node.call<RpcCertificates>("tesra_certificates", [count]);
  const { certificateMiner, decodeCertificate } =
    await import("../chain/certificate/certificate.js");
  const rows = answer.recent.map(({ blockNumber, certificate }) => {
    const decoded = decodeCertificate(Buffer.from(certificate.slice(2), "hex"));
    const { height, nonce, tile, m, n, k } = decoded;
    return {
      block: number(blockNumber), miner: certificateMiner(decoded), challenge: height, nonce, tile,
      shape: `${m}x${n}x${k}`, certificate,
    };
  });
  const output = await context.output();
  output.list(rows, [
    { title: "BLOCK", value: (row) => row.block, align: "right" },
    { title: "CHALLENGE", value: (row) => row.challenge, align: "right" },
    { title: "MINER", value: (row) => row.miner },
    { title: "NONCE", value: (row) => row.nonce, align: "right" },
    { title: "TILE", value: (row) => row.tile, align: "right" },
    { title: "SHAPE", value: (row) => row.shape },
  ]);
  output.note(`${BigInt(answer.count)} certificates on chain prove ${BigInt(answer.multiplyAdds)} `
    + `multiply-adds; ${BigInt(answer.usefulMultiplyAdds)} more were paid training work.`);
}

async function supply(context: CliContext): Promise<void> {
  const node = await connect(context);
  const amounts = await node.call<Record<string, string>>("tesra_supply");
  const { formatEther } = await import("viem");
  (await context.output()).record({
    ...Object.fromEntries(Object.entries(amounts)
      .map(([name, amount]) => [name, formatEther(BigInt(amount))])),
    unit: "TSR",
  });
}

async function verify(
  context: CliContext, store: string | undefined, genesis: string,
): Promise<void> {
  const { resolve, join } = await import("node:path");
  const { dataDir } = await context.settings();
  const { verifyStore } = await import("./chain-verify.js");
  const output = await context.output();
  const result = await verifyStore({
    folder: store === undefined ? join(dataDir, "chain") : resolve(context.world.cwd, store),
    genesisFile: resolve(context.world.cwd, genesis),
    signal: context.signal,
    progress: (total) => output.progress("Replaying", total),
  });
  output.record(result);
  if (!result.ok) context.setExitCode(1);
}

/** A method that a node may lack without the command failing. */
async function optional<T>(call: Promise<T>): Promise<T | undefined> {
  return call.catch(() => undefined);
}

const number = (quantity: string) => Number(BigInt(quantity));
const time = (quantity: string) => new Date(number(quantity) * 1_000).toISOString();
