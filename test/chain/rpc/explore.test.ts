// What tools ask beyond reading and sending: proofs, filters, traces, access lists, overrides, the pool's content.
import { createMerkleProof, createMPT, verifyMerkleProof } from "@ethereumjs/mpt";
import { RLP } from "@ethereumjs/rlp";
import { encodeFunctionData, encodeDeployData } from "viem";
import { beforeAll, describe, expect, it } from "vitest";
import { equals, fromHex, keccak, toHex } from "../../../src/chain/bytes.js";
import type { Chain } from "../../../src/chain/chain.js";
import { FILTERS_MAX } from "../../../src/chain/rpc/filters.js";
import { createJsonRpc, type JsonRpc } from "../../../src/chain/rpc/json-rpc.js";
import type { Notification } from "../../../src/chain/rpc/subscriptions.js";
import { counterContract } from "../counter-contract.js";
import { alice, bob, carol, genesisFor, GENESIS_MS, openChain, party, produceNext, signed, submit } from "../devnet.js";

const { abi, bytecode } = counterContract;
const v1 = party("v1"), v2 = party("v2");
const genesis = genesisFor([v1, v2]);
interface Answer { result?: any; error?: { code: number; message: string } }
const asker = (rpc: JsonRpc) => async (method: string, ...params: unknown[]) => await rpc.handle({ jsonrpc: "2.0", id: 1, method, params }) as Answer;

let chain: Chain;
let ask: ReturnType<typeof asker>;
let counter: `0x${string}`;
let added: string;
const data = (functionName: "add" | "fail" | "count", ...args: bigint[]) => encodeFunctionData({ abi, functionName, args } as never);

beforeAll(async () => {
  chain = await openChain(genesis);
  ask = asker(createJsonRpc(chain));
  await submit(chain, await signed(alice, { nonce: 0, data: encodeDeployData({ abi, bytecode } as never), gas: 1_000_000n }));
  await produceNext(chain, v1, GENESIS_MS);
  counter = (await ask("eth_getBlockReceipts", "latest")).result[0].contractAddress;
  await submit(chain, await signed(bob, { nonce: 0, to: carol.address, value: 5n }));
  added = toHex(await submit(chain, await signed(alice, { nonce: 1, to: fromHex(counter), data: data("add", 7n), gas: 100_000n })));
  await produceNext(chain, v1);
});

describe("eth_getProof", () => {
  const nodes = (proof: string[]) => proof.map((node) => fromHex(node));
  it("proves an account and its slots to somebody who has the state root alone", async () => {
    const { result } = await ask("eth_getProof", counter, ["0x0", "0x1"], "latest");
    const account = await verifyMerkleProof(fromHex(counter), nodes(result.accountProof), { useKeyHashing: true, root: chain.head.stateRoot });
    const [nonce, balance, storageHash, codeHash] = (RLP.decode(account!) as Uint8Array[]).map((field) => toHex(field));
    expect({ nonce, balance, storageHash, codeHash }).toEqual({ nonce: "0x01", balance: "0x", storageHash: result.storageHash, codeHash: result.codeHash });
    expect(result.codeHash).toBe(toHex(keccak(fromHex((await ask("eth_getCode", counter, "latest")).result))));
    const [count, none] = result.storageProof;
    expect([count.value, none.value]).toEqual(["0x7", "0x0"]);
    const root = fromHex(result.storageHash);
    const slot = (n: number) => Uint8Array.from({ length: 32 }, (_, i) => (i === 31 ? n : 0));
    expect(await verifyMerkleProof(slot(0), nodes(count.proof), { useKeyHashing: true, root })).toEqual(RLP.encode(7));
    expect(await verifyMerkleProof(slot(1), nodes(none.proof), { useKeyHashing: true, root })).toBeNull();
  });

  it("proves absence, and no forged node passes", async () => {
    const nobody = toHex(keccak(Uint8Array.of(1)).subarray(12));
    const { result } = await ask("eth_getProof", nobody, [], "latest");
    const proof = nodes(result.accountProof);
    expect(await verifyMerkleProof(fromHex(nobody), proof, { useKeyHashing: true, root: chain.head.stateRoot })).toBeNull();
    proof[proof.length - 1]![5]! ^= 1;
    await expect(verifyMerkleProof(fromHex(nobody), proof, { useKeyHashing: true, root: chain.head.stateRoot })).rejects.toThrow();
    const other = await createMPT({ useKeyHashing: true });
    await other.put(fromHex(nobody), RLP.encode([1]));
    const forged = await createMerkleProof(other, fromHex(nobody));
    await expect(verifyMerkleProof(fromHex(nobody), forged, { useKeyHashing: true, root: chain.head.stateRoot })).rejects.toThrow();
  });

  it("answers for the past and refuses too much", async () => {
    expect((await ask("eth_getProof", counter, ["0x0"], "0x1")).result.storageProof[0].value).toBe("0x0");
    expect((await ask("eth_getProof", counter, Array.from({ length: 1_025 }, () => "0x0"), "latest")).error!.code).toBe(-32602);
    expect((await ask("eth_getProof", counter, ["0xzz"], "latest")).error!.code).toBe(-32602);
  });
});

describe("filters", () => {
  it("tell each block, log and waiting transaction once, and what a reorganisation took away", async () => {
    const [one, two] = [await openChain(genesis), await openChain(genesis)];
    const own = asker(createJsonRpc(one));
    const blocks = (await own("eth_newBlockFilter")).result, pending = (await own("eth_newPendingTransactionFilter")).result;
    await produceNext(one, v1, GENESIS_MS);
    const deployed = await submit(one, await signed(alice, { nonce: 0, data: encodeDeployData({ abi, bytecode } as never), gas: 1_000_000n }));
    const first = await produceNext(one, v1);
    expect((await own("eth_getFilterChanges", blocks)).result).toHaveLength(2);
    expect((await own("eth_getFilterChanges", blocks)).result).toEqual([]);
    expect((await own("eth_getFilterChanges", pending)).result).toEqual([toHex(deployed)]);
    expect((await own("eth_getFilterChanges", pending)).result).toEqual([]);
    const address = (await own("eth_getBlockReceipts", toHex(first.header.hash))).result[0].contractAddress;
    const logs = (await own("eth_newFilter", { address, fromBlock: "0x0" })).result;
    await submit(one, await signed(alice, { nonce: 1, to: fromHex(address), data: data("add", 3n), gas: 100_000n }));
    const lost = await produceNext(one, v1);
    expect((await own("eth_getFilterChanges", logs)).result).toMatchObject([{ blockHash: toHex(lost.header.hash), removed: false }]);
    expect((await own("eth_getFilterLogs", logs)).result).toHaveLength(1);
    for (let i = 0; i < 4; i++) await produceNext(two, v2, i === 0 ? GENESIS_MS : undefined);
    await deliver(two, one);
    expect(equals(one.head.hash, two.head.hash)).toBe(true);
    expect((await own("eth_getFilterChanges", logs)).result).toMatchObject([{ blockHash: toHex(lost.header.hash), removed: true }]);
    expect((await own("eth_getFilterChanges", blocks)).result).toEqual([1, 2, 3, 4].map((n) => toHex(two.index.canonicalHash(n)!)));
    expect((await own("eth_uninstallFilter", logs)).result).toBe(true);
    expect((await own("eth_uninstallFilter", logs)).result).toBe(false);
    expect((await own("eth_getFilterChanges", logs)).error).toMatchObject({ code: -32000, message: "filter not found" });
  });

  it("are bounded: the one polled longest ago makes room", async () => {
    const kept = (await ask("eth_newBlockFilter")).result, forgotten = (await ask("eth_newBlockFilter")).result;
    await ask("eth_getFilterChanges", kept);
    for (let i = 0; i < FILTERS_MAX - 1; i++) await ask("eth_newBlockFilter");
    expect((await ask("eth_getFilterChanges", forgotten)).error).toBeDefined();
    expect((await ask("eth_getFilterChanges", kept)).result).toEqual([]);
  });
});

async function deliver(from: Chain, to: Chain): Promise<void> {
  for (let number = 1; number <= from.head.number; number++) await to.importBlock(from.encodedBlock(from.index.canonicalHash(number)!)!, Number.MAX_SAFE_INTEGER);
}

describe("eth_subscribe", () => {
  it("tells every adopted block in order, logs with removals, transactions; and nothing after the end", async () => {
    const [one, two] = [await openChain(genesis), await openChain(genesis)];
    const heard: Notification[] = [];
    const connection = createJsonRpc(one).connect((each) => heard.push(each));
    const own = asker(connection as JsonRpc);
    expect((await ask("eth_subscribe", "newHeads")).error).toMatchObject({ code: -32601 });
    expect((await own("eth_subscribe", "oldHeads")).error).toMatchObject({ code: -32602 });
    const heads = (await own("eth_subscribe", "newHeads")).result, logs = (await own("eth_subscribe", "logs", {})).result;
    const full = (await own("eth_subscribe", "newPendingTransactions", true)).result;
    await submit(one, await signed(alice, { nonce: 0, data: encodeDeployData({ abi, bytecode } as never), gas: 1_000_000n }));
    await produceNext(one, v1, GENESIS_MS);
    const address = (await own("eth_getBlockReceipts", "latest")).result[0].contractAddress;
    await submit(one, await signed(alice, { nonce: 1, to: fromHex(address), data: data("add", 3n), gas: 100_000n }));
    const lost = await produceNext(one, v1);
    for (let i = 0; i < 3; i++) await produceNext(two, v2, i === 0 ? GENESIS_MS : undefined);
    await deliver(two, one);
    const of = (subscription: string) => heard.filter((each) => each.params.subscription === subscription).map((each) => each.params.result as any);
    expect(of(heads).map(({ hash }) => hash).slice(2)).toEqual([1, 2, 3].map((n) => toHex(two.index.canonicalHash(n)!)));
    expect(of(logs).map(({ blockHash, removed }) => [blockHash, removed])).toEqual([[toHex(lost.header.hash), false], [toHex(lost.header.hash), true]]);
    expect(of(full)[0]).toMatchObject({ from: toHex(alice.address), nonce: "0x0", blockHash: null });
    expect((await own("eth_unsubscribe", heads)).result).toBe(true);
    connection.close();
    const { length } = heard;
    await produceNext(one, v1);
    expect(heard).toHaveLength(length);
  });
});

describe("tracing", () => {
  it("debug_traceTransaction gives each opcode with gas, stack and slots", async () => {
    const { result } = await ask("debug_traceTransaction", added);
    const { gasUsed } = (await ask("eth_getTransactionReceipt", added)).result;
    expect(result).toMatchObject({ failed: false, returnValue: "0x", gas: Number(gasUsed) });
    const ops = result.structLogs as any[];
    expect(ops[0]).toMatchObject({ pc: 0, op: "PUSH1", gasCost: 3, depth: 1, stack: [] });
    const store = ops.find(({ op }) => op === "SSTORE");
    expect(store.storage).toEqual({ [`0x${"0".repeat(64)}`]: `0x${"7".padStart(64, "0")}` });
    expect(store.gasCost).toBe(20_000); // the slot is warm by then: SLOAD came before (EIP-2929)
    expect(ops.at(-1).op).toBe("STOP");
    // what each step has left is what the one before it left
    for (let i = 1; i < ops.length; i++) expect(ops[i].gas).toBe(ops[i - 1].gas - ops[i - 1].gasCost);
    expect((await ask("debug_traceTransaction", added, { limit: 5, disableStack: true })).result.structLogs).toHaveLength(5);
  });

  it("callTracer gives the tree of calls, with reverts and logs", async () => {
    const { result } = await ask("debug_traceTransaction", added, { tracer: "callTracer", tracerConfig: { withLog: true } });
    expect(result).toMatchObject({ type: "CALL", from: toHex(alice.address), to: counter, value: "0x0", input: data("add", 7n) });
    expect(result.gas).toBe("0x186a0");
    expect(result.gasUsed).toBe((await ask("eth_getTransactionReceipt", added)).result.gasUsed);
    const [log] = (await ask("eth_getLogs", { address: counter, fromBlock: "0x0" })).result;
    expect(result.logs).toEqual([{ address: counter, topics: log.topics, data: log.data, position: "0x0" }]);
    const failed = (await ask("debug_traceCall", { to: counter, data: data("fail") }, "latest", { tracer: "callTracer" })).result;
    expect(failed).toMatchObject({ error: "execution reverted", revertReason: "never works" });
    expect((await ask("debug_traceCall", { to: counter, data: data("fail") }, "latest", { tracer: "magic" })).error!.code).toBe(-32602);
    expect((await ask("debug_traceTransaction", `0x${"1".repeat(64)}`)).error!.message).toContain("not found");
  });

  it("debug_traceBlock traces each transaction on the state that the ones before it left", async () => {
    const { result } = await ask("debug_traceBlockByNumber", "latest", { tracer: "callTracer" });
    expect(result).toHaveLength(2);
    const hashes = (await ask("eth_getBlockByNumber", "latest")).result.transactions;
    expect(result.map((each: any) => each.txHash)).toEqual(hashes);
    expect(result.every((each: any) => each.result.error === undefined)).toBe(true);
    const before = toHex(chain.head.stateRoot);
    expect((await ask("eth_getBlockByNumber", "latest")).result.stateRoot).toBe(before);
  });
});

describe("calls", () => {
  it("eth_createAccessList finds the slots, and the gas is that of a transaction with the list", async () => {
    const call = { from: toHex(bob.address), to: counter, data: data("add", 1n) };
    const { accessList, gasUsed, error } = (await ask("eth_createAccessList", call, "latest")).result;
    expect(error).toBeUndefined();
    expect(accessList).toEqual([{ address: counter, storageKeys: [`0x${"0".repeat(64)}`] }]);
    const hash = await bob.account.signTransaction({
      type: "eip2930", chainId: chain.genesis.chainId, nonce: 1, gas: 100_000n, gasPrice: 10n ** 10n, to: counter, data: call.data, accessList,
    });
    const receipt = async () => (await ask("eth_getTransactionReceipt", sent)).result;
    const sent = (await ask("eth_sendRawTransaction", hash)).result;
    await produceNext(chain, v1);
    expect((await receipt()).gasUsed).toBe(gasUsed);
  });

  it("eth_call sees overridden balances, code and slots, and the next call does not", async () => {
    const read = (overrides?: unknown) => ask("eth_call", { to: counter, data: data("count") }, "latest", overrides);
    const word = (n: bigint) => `0x${n.toString(16).padStart(64, "0")}`;
    const slot = { [word(0n)]: word(99n) };
    const { result } = await read();
    expect((await read({ [counter]: { stateDiff: slot } })).result).toBe(word(99n));
    expect((await read({ [counter]: { state: { [word(1n)]: word(1n) } } })).result).toBe(word(0n));
    // PUSH1 42 PUSH0 MSTORE PUSH1 32 PUSH0 RETURN
    expect((await read({ [counter]: { code: "0x602a5f5260205ff3" } })).result).toBe(word(42n));
    const rich = { from: toHex(carol.address), to: toHex(bob.address), value: `0x${(10n ** 30n).toString(16)}` };
    expect((await ask("eth_call", rich, "latest")).error).toBeDefined();
    expect((await ask("eth_call", rich, "latest", { [toHex(carol.address)]: { balance: `0x${(10n ** 31n).toString(16)}` } })).result).toBe("0x");
    expect((await read()).result).toBe(result);
    expect((await read({ [counter]: { state: {}, stateDiff: {} } })).error!.code).toBe(-32602);
  });

  it("txpool_content tells executable transactions from those with a gap before them", async () => {
    await submit(chain, await signed(carol, { nonce: 0, to: bob.address, value: 1n }));
    await submit(chain, await signed(carol, { nonce: 2, to: bob.address, value: 1n }));
    const owner = toHex(carol.address);
    const { pending, queued } = (await ask("txpool_content")).result;
    expect([Object.keys(pending[owner]), Object.keys(queued[owner])]).toEqual([["0"], ["2"]]);
    expect((await ask("txpool_status")).result).toEqual({ pending: "0x1", queued: "0x1" });
    expect((await ask("txpool_inspect")).result.pending[owner]["0"]).toContain("1 wei + 21000 gas");
  });
});
