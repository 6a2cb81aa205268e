// The WebSocket door over real sockets: viem and ethers watch the chain; hostile clients harm only themselves.
import { once } from "node:events";
import { WebSocketProvider } from "ethers";
import { createPublicClient, defineChain, webSocket } from "viem";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import { serveJsonRpc } from "../../../src/actors/chain-node/http.js";
import { toHex } from "../../../src/chain/bytes.js";
import type { Chain } from "../../../src/chain/chain.js";
import { createJsonRpc } from "../../../src/chain/rpc/json-rpc.js";
import { alice, bob, CHAIN_ID, genesisFor, GENESIS_MS, openChain, party, produceNext, signed, submit } from "../devnet.js";

const v1 = party("v1");
let chain: Chain;
let door: Awaited<ReturnType<typeof serveJsonRpc>>;
let url: string;
beforeAll(async () => {
  chain = await openChain(genesisFor([v1]));
  door = await serveJsonRpc(createJsonRpc(chain), { host: "127.0.0.1", port: 0 }, { connections: 4, requests: 8, messageBytes: 1 << 16 });
  url = door.url.replace("http", "ws");
  await produceNext(chain, v1, GENESIS_MS);
});
afterAll(() => door.close());

const connect = async () => {
  const socket = new WebSocket(url);
  await once(socket, "open");
  return socket;
};
const answer = async (socket: WebSocket) => JSON.parse(String((await once(socket, "message"))[0])) as any;

describe("WebSocket", () => {
  it("viem watches blocks and pending transactions, and reads, on one connection", async () => {
    const tesra = defineChain({ id: CHAIN_ID, name: "devnet", nativeCurrency: { name: "Tesra", symbol: "TSR", decimals: 18 }, rpcUrls: { default: { http: [] } } });
    const client = createPublicClient({ chain: tesra, transport: webSocket(url) });
    const seen = new Promise<bigint>((resolve, reject) => {
      const stop = client.watchBlockNumber({ onBlockNumber: (number) => { stop(); resolve(number); }, onError: reject });
    });
    const pending = new Promise<string[]>((resolve, reject) => {
      const stop = client.watchPendingTransactions({ onTransactions: (hashes) => { stop(); resolve(hashes); }, onError: reject });
    });
    await client.getChainId(); // answered in order: both subscriptions stand
    const hash = await submit(chain, await signed(alice, { nonce: 0, to: bob.address, value: 1n }));
    expect(await pending).toEqual([toHex(hash)]);
    const { header } = await produceNext(chain, v1);
    expect(await seen).toBe(BigInt(header.number));
    expect((await client.waitForTransactionReceipt({ hash: toHex(hash) })).status).toBe("success");
    (await (client.transport as unknown as { getRpcClient(): Promise<{ close(): void }> }).getRpcClient()).close();
  });

  it("ethers gets blocks and logs", async () => {
    const provider = new WebSocketProvider(url, CHAIN_ID, { staticNetwork: true });
    const block = new Promise<number>((resolve) => { void provider.once("block", resolve); });
    await provider.getBlockNumber();
    await provider.send("eth_chainId", []);
    const { header } = await produceNext(chain, v1);
    expect(await block).toBe(header.number);
    await provider.destroy();
  });

  it("answers in order, and a notification never comes before its subscription's id", async () => {
    const socket = await connect();
    const messages: any[] = [];
    socket.on("message", (text) => messages.push(JSON.parse(String(text))));
    for (let id = 0; id < 8; id++) socket.send(JSON.stringify({ jsonrpc: "2.0", id, method: id === 3 ? "eth_subscribe" : "eth_chainId", params: id === 3 ? ["newHeads"] : [] }));
    await produceNext(chain, v1);
    while (messages.length < 8) await once(socket, "message");
    await produceNext(chain, v1);
    while (!messages.some(({ method }) => method === "eth_subscription")) await once(socket, "message");
    expect(messages.filter(({ id }) => id !== undefined).map(({ id }) => id)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    const granted = messages.findIndex(({ id }) => id === 3);
    expect(messages.findIndex(({ method }) => method === "eth_subscription")).toBeGreaterThan(granted);
    socket.terminate();
  });

  it("says what was wrong with text that is no JSON; closes on binary, floods, giants and too many connections", async () => {
    const socket = await connect();
    socket.send("{nonsense");
    expect(await answer(socket)).toMatchObject({ error: { code: -32700 } });
    socket.send(JSON.stringify({ jsonrpc: "2.0", id: 1, method: "eth_chainId" }));
    expect(await answer(socket)).toMatchObject({ id: 1, result: `0x${CHAIN_ID.toString(16)}` });
    socket.send(Buffer.from([1, 2, 3]));
    expect((await once(socket, "close"))[0]).toBe(1007);
    const flood = await connect();
    for (let i = 0; i < 64; i++) flood.send(JSON.stringify({ jsonrpc: "2.0", id: i, method: "tesra_ledger", params: [] }));
    expect((await once(flood, "close"))[0]).toBe(1008);
    const giant = await connect();
    giant.on("error", () => undefined);
    giant.send("x".repeat(1 << 17));
    expect((await once(giant, "close"))[0]).toBe(1009);
    const crowd = await Promise.all(Array.from({ length: 8 }, async () => {
      const each = new WebSocket(url);
      const refusal = once(each, "close").then(([code]) => code as number);
      each.once("open", () => each.send(JSON.stringify({ jsonrpc: "2.0", id: 7, method: "eth_blockNumber" })));
      return { each, outcome: await Promise.race([answer(each).catch(() => refusal), refusal]) };
    }));
    expect(crowd.filter(({ outcome }) => outcome === 1013).length).toBeGreaterThanOrEqual(4);
    expect(crowd.filter(({ outcome }) => outcome.id === 7).length).toBeGreaterThan(0); // the others are served as before
    for (const { each } of crowd) each.terminate();
  });
});
