// The JSON-RPC as wallets see it: viem and ethers read, send, deploy and call through it.
import { createPublicClient, createWalletClient, custom, defineChain, parseEther } from "viem";
import { ContractFactory, JsonRpcApiProvider, Network, Wallet, Contract, type JsonRpcPayload, type JsonRpcResult } from "ethers";
import { beforeAll, describe, expect, it } from "vitest";
import { toHex } from "../../../src/chain/bytes.js";
import type { Chain } from "../../../src/chain/chain.js";
import { createJsonRpc, type JsonRpc } from "../../../src/chain/rpc/json-rpc.js";
import { alice, bob, carol, CHAIN_ID, genesisFor, GENESIS_MS, openChain, party, produceNext } from "../devnet.js";
import { counterContract } from "../counter-contract.js";

const v1 = party("v1");
const tesra = defineChain({
  id: CHAIN_ID, name: "devnet", nativeCurrency: { name: "Tesra", symbol: "TSR", decimals: 18 }, rpcUrls: { default: { http: [] } },
});

let chain: Chain;
let rpc: JsonRpc;
beforeAll(async () => {
  chain = await openChain(genesisFor([v1]));
  rpc = createJsonRpc(chain, { clientVersion: "test/1" });
  await produceNext(chain, v1, GENESIS_MS);
});

const transport = custom({
  async request({ method, params }: { method: string; params?: unknown }) {
    const response = await rpc.handle({ jsonrpc: "2.0", id: 1, method, params: params ?? [] }) as
      { result?: unknown; error?: { code: number; message: string; data?: unknown } };
    if (response.error) throw Object.assign(new Error(response.error.message), response.error);
    return response.result;
  },
}, { retryCount: 0 });

describe("viem", () => {
  const client = createPublicClient({ chain: tesra, transport, pollingInterval: 5 });
  const wallet = createWalletClient({ chain: tesra, transport, account: alice.account });

  it("reads blocks, balances and fees", async () => {
    expect(await client.getChainId()).toBe(CHAIN_ID);
    expect(await client.getBlockNumber({ cacheTime: 0 })).toBe(1n);
    const block = await client.getBlock({ blockNumber: 1n });
    expect(block.hash).toBe(toHex(chain.head.hash));
    expect((await client.getBlock({ blockHash: block.parentHash })).number).toBe(0n);
    expect(await client.getBalance({ address: bob.account.address })).toBe(parseEther("1000000"));
    expect((await client.getFeeHistory({ blockCount: 4, rewardPercentiles: [10, 50] })).oldestBlock).toBe(0n);
    expect((await client.estimateFeesPerGas()).maxFeePerGas).toBeGreaterThan(0n);
    expect((await client.getBlock({ blockTag: "finalized" })).number).toBe(0n);
  });

  it("sends a transfer and gets its receipt", async () => {
    const hash = await wallet.sendTransaction({ to: carol.account.address, value: parseEther("3") });
    expect((await client.getTransaction({ hash })).blockNumber).toBeNull();
    await produceNext(chain, v1);
    const receipt = await client.waitForTransactionReceipt({ hash });
    expect(receipt.status).toBe("success");
    expect(receipt.gasUsed).toBe(21_000n);
    expect((await client.getTransaction({ hash })).blockNumber).toBe(2n);
    expect(await client.getTransactionCount({ address: alice.account.address })).toBe(1);
    expect(await client.getTransactionConfirmations({ hash })).toBe(1n);
  });

  it("deploys a contract, calls it, reads its logs and its revert reason", async () => {
    const hash = await wallet.deployContract({ abi: counterContract.abi, bytecode: counterContract.bytecode });
    await produceNext(chain, v1);
    const { contractAddress } = await client.waitForTransactionReceipt({ hash });
    const address = contractAddress!;
    expect((await client.getCode({ address }))!.length).toBeGreaterThan(10);
    const write = await wallet.writeContract({ address, abi: counterContract.abi, functionName: "add", args: [7n] });
    await produceNext(chain, v1);
    expect((await client.waitForTransactionReceipt({ hash: write })).logs).toHaveLength(1);
    expect(await client.readContract({ address, abi: counterContract.abi, functionName: "count" })).toBe(7n);
    expect(BigInt((await client.getStorageAt({ address, slot: "0x0" }))!)).toBe(7n);
    const logs = await client.getContractEvents({ address, abi: counterContract.abi, eventName: "Added", fromBlock: 0n });
    expect(logs[0]!.args).toMatchObject({ by: alice.account.address, amount: 7n });
    await expect(client.readContract({ address, abi: counterContract.abi, functionName: "fail" })).rejects.toThrow("never works");
    await expect(wallet.writeContract({ address, abi: counterContract.abi, functionName: "fail" })).rejects.toThrow("never works");
  });

  it("reads the balance of the past", async () => {
    const now = await client.getBalance({ address: carol.account.address });
    expect(await client.getBalance({ address: carol.account.address, blockNumber: 1n })).toBe(now - parseEther("3"));
  });
});

describe("ethers", () => {
  class HandlerProvider extends JsonRpcApiProvider {
    constructor() {
      super(Network.from(CHAIN_ID), { staticNetwork: true, polling: true, pollingInterval: 5, cacheTimeout: -1 });
      this._start();
    }
    override async _send(payload: JsonRpcPayload | JsonRpcPayload[]): Promise<JsonRpcResult[]> {
      const response = await rpc.handle(Array.isArray(payload) ? payload : [payload]);
      return response as JsonRpcResult[];
    }
  }

  it("reads, transfers, deploys and filters", async () => {
    const provider = new HandlerProvider();
    try {
      const wallet = new Wallet(toHex(bob.privateKey), provider);
      expect((await provider.getBlock("latest"))!.number).toBe(chain.head.number);
      const sent = await wallet.sendTransaction({ to: carol.account.address, value: 5n });
      await produceNext(chain, v1);
      expect((await sent.wait())!.status).toBe(1);
      const factory = new ContractFactory(counterContract.abi as never, counterContract.bytecode, wallet);
      const contract = await factory.deploy();
      await produceNext(chain, v1);
      await contract.waitForDeployment();
      const counter = new Contract(await contract.getAddress(), counterContract.abi as never, wallet);
      const added = await counter["add"]!(11n);
      await produceNext(chain, v1);
      await added.wait();
      expect(await counter["count"]!()).toBe(11n);
      const logs = await provider.getLogs({ address: await contract.getAddress(), fromBlock: 0, toBlock: "latest" });
      expect(logs).toHaveLength(1);
      await expect(counter["fail"]!.staticCall()).rejects.toThrow("never works");
    } finally {
      provider.destroy();
    }
  });
});

