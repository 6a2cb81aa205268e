import { beforeAll, describe, expect, it } from "vitest";
import fc from "fast-check";
import { keccak, toHex, utf8 } from "../../../src/chain/bytes.js";
import type { Chain } from "../../../src/chain/chain.js";
import { createJsonRpc, type JsonRpc } from "../../../src/chain/rpc/json-rpc.js";
import { createMethods } from "../../../src/chain/rpc/methods.js";
import { alice, bob, genesisFor, GENESIS_MS, openChain, party, produceNext, signed, submit } from "../devnet.js";

const v1 = party("v1");
let chain: Chain;
let rpc: JsonRpc;
beforeAll(async () => {
  chain = await openChain(genesisFor([v1]));
  rpc = createJsonRpc(chain);
  await submit(chain, await signed(alice, { nonce: 0, to: bob.address, value: 1n }));
  await produceNext(chain, v1, GENESIS_MS);
});

interface Answer { result?: unknown; error?: { code: number; message: string; data?: unknown } }
const ask = async (method: string, ...params: unknown[]) =>
  await rpc.handle({ jsonrpc: "2.0", id: 1, method, params }) as Answer;

describe("JSON-RPC", () => {
  it("answers bad requests with the standard codes and says what was expected", async () => {
    const cases: [string, unknown[], number, string][] = [
      ["eth_fillTransaction", [{}], -32601, "does not exist"],
      ["eth_getBalance", ["0x12", "latest"], -32602, "address"],
      ["eth_getBalance", [], -32602, "address"],
      ["eth_getBalance", [toHex(alice.address), "newest"], -32602, "latest"],
      ["eth_getBalance", [toHex(alice.address), "0xffffff"], -32000, "header not found"],
      ["eth_getBlockByHash", ["0x00"], -32602, "block hash"],
      ["eth_getTransactionByHash", [7], -32602, "transaction hash"],
      ["eth_sendRawTransaction", ["nonsense"], -32602, "transaction"],
      ["eth_sendRawTransaction", ["0x02c0"], -32000, ""],
      ["eth_sendRawTransaction", [toHex(await signed(alice, { nonce: 0, to: bob.address }))], -32000, "nonce too low"],
      ["eth_getLogs", [{ topics: "x" }], -32602, "topics"],
      ["eth_feeHistory", ["0xffff", "latest", []], -32602, "at most"],
      ["eth_call", ["x", "latest"], -32602, "object"],
    ];
    for (const [method, params, code, text] of cases) {
      const { error } = await ask(method, ...params);
      expect({ method, code: error?.code }).toEqual({ method, code });
      expect(error!.message).toContain(text);
    }
  });

  it("takes batches, skips notifications, refuses empty and huge ones", async () => {
    const request = (id: unknown, method: string) => ({ jsonrpc: "2.0", id, method, params: [] });
    const batch = await rpc.handle([request(1, "eth_chainId"), request("b", "nope"), { jsonrpc: "2.0", method: "eth_chainId" }]) as Answer[];
    expect(batch).toMatchObject([{ id: 1 }, { id: "b", error: { code: -32601 } }]);
    expect(await rpc.handle([])).toMatchObject({ error: { code: -32600 } });
    expect(await rpc.handle(Array.from({ length: 201 }, (_, i) => request(i, "eth_chainId")))).toMatchObject({ error: { code: -32600 } });
    expect(await rpc.handle({ jsonrpc: "2.0", method: "eth_chainId" })).toBeUndefined();
    expect(await rpc.handle(null)).toMatchObject({ error: { code: -32600 } });
    expect(await rpc.handle({ id: 1, method: "eth_chainId", params: {} })).toMatchObject({ error: { code: -32602 } });
  });

  it("never throws, whatever the parameters (property)", async () => {
    const methods = Object.keys(createMethods(chain, {}));
    await fc.assert(fc.asyncProperty(fc.constantFrom(...methods), fc.array(fc.oneof(
      fc.jsonValue(), fc.constantFrom("latest", "0x0", "0x1", toHex(alice.address), toHex(keccak(utf8("x")))),
    ), { maxLength: 4 }), async (method, params) => {
      const answer = await ask(method, ...params);
      expect("result" in answer !== "error" in answer).toBe(true);
      expect(answer.error?.code).not.toBe(-32603); // an internal error is a parameter that nobody checked
      JSON.stringify(answer);
    }), { numRuns: 300 });
  });

  it("reports this chain's own state", async () => {
    expect((await ask("tesra_consensus")).result).toMatchObject({ headNumber: "0x1", stakers: [{ address: toHex(v1.address) }] });
    expect((await ask("tesra_supply")).result).toMatchObject({ supply: `0x${(10n ** 28n).toString(16)}` });
    expect((await ask("tesra_certificates")).result).toMatchObject({ count: "0x0", recent: [] });
    expect((await ask("tesra_payments", "latest")).result).toMatchObject([{ to: toHex(v1.address), role: "producer" }]);
    expect((await ask("eth_syncing")).result).toBe(false);
    expect((await ask("eth_accounts")).result).toEqual([]);
  });

  it("estimates what the transaction then uses", async () => {
    const { result } = await ask("eth_estimateGas", { from: toHex(alice.address), to: toHex(bob.address), value: "0x1" });
    expect(BigInt(result as string)).toBe(21_000n);
    const overdraft = await ask("eth_estimateGas", { from: toHex(party("poor").address), to: toHex(bob.address), value: "0x1" });
    expect(overdraft.error!.message).toContain("insufficient funds");
  });
});
