// Owns the transactions of one account: nonces in order, gas, and the wait for inclusion.
// Invariant: transactions of an account leave one at a time in nonce order; a refused one leaves no gap.
import {
  createPublicClient, createWalletClient, custom, defineChain, type Abi, type Address, type Hex,
  type PublicClient, type TransactionReceipt, type WalletClient, encodeFunctionData,
} from "viem";
import { privateKeyToAccount, type PrivateKeyAccount } from "viem/accounts";

/** Answers one JSON-RPC request object with one response object. */
export type RpcCall = (request: unknown) => Promise<unknown>;

const RECEIPT_POLL_MS = 150;
const RECEIPT_TIMEOUT_MS = 30_000;

export interface ContractCall {
  address: Address;
  abi: Abi;
  functionName: string;
  args: readonly unknown[];
  value?: bigint;
}

export class TransactionFailed extends Error {
  readonly code = "transaction-failed";
  constructor(readonly what: string, readonly reason: string) {
    super(`${what} failed on chain: ${reason}`);
  }
}

/** viem over any JSON-RPC carrier (an actor link, HTTP, the chain in this process). */
export function createChainClient(call: RpcCall, chainId: number): PublicClient {
  return createPublicClient({ chain: chainOf(chainId), transport: transportOf(call), pollingInterval: RECEIPT_POLL_MS });
}

export class Transactor {
  readonly account: PrivateKeyAccount;
  readonly client: PublicClient;
  private readonly wallet: WalletClient;
  private tail: Promise<unknown> = Promise.resolve();

  constructor(options: { privateKey: Hex; chainId: number }, modules: { rpc: RpcCall }) {
    this.account = privateKeyToAccount(options.privateKey);
    this.client = createChainClient(modules.rpc, options.chainId);
    this.wallet = createWalletClient({
      account: this.account, chain: chainOf(options.chainId), transport: transportOf(modules.rpc),
    });
  }

  get address(): Address {
    return this.account.address;
  }

  read<T>(call: Omit<ContractCall, "value">): Promise<T> {
    return this.client.readContract(call as never) as Promise<T>;
  }

  /** Sends a contract call and waits until a block holds it. Throws TransactionFailed with the reason. */
  send(call: ContractCall): Promise<TransactionReceipt> {
    const data = encodeFunctionData({ abi: call.abi, functionName: call.functionName, args: call.args });
    return this.enqueue(call.functionName, { to: call.address, data, value: call.value ?? 0n });
  }

  transfer(to: Address, value: bigint): Promise<TransactionReceipt> {
    return this.enqueue("transfer", { to, value });
  }

  private enqueue(what: string, request: { to: Address; data?: Hex; value: bigint }): Promise<TransactionReceipt> {
    const result = this.tail.then(() => this.submit(what, request));
    this.tail = result.catch(() => undefined); // a failed transaction frees the queue; its caller gets the error
    return result;
  }

  private async submit(what: string, request: { to: Address; data?: Hex; value: bigint }): Promise<TransactionReceipt> {
    try {
      const gas = await this.client.estimateGas({ account: this.account.address, ...request });
      const hash = await this.wallet.sendTransaction({
        account: this.account, chain: this.wallet.chain, ...request, gas: (gas * 13n) / 10n,
        type: "eip1559",
      });
      const receipt = await this.client.waitForTransactionReceipt({
        hash, pollingInterval: RECEIPT_POLL_MS, timeout: RECEIPT_TIMEOUT_MS,
      });
      if (receipt.status !== "success") throw new TransactionFailed(what, "reverted");
      return receipt;
    } catch (error) {
      if (error instanceof TransactionFailed) throw error;
      throw new TransactionFailed(what, reasonOf(error));
    }
  }
}

function reasonOf(error: unknown): string {
  const viemError = error as { shortMessage?: string; details?: string; message?: string };
  return [viemError.shortMessage ?? viemError.message, viemError.details].filter(Boolean).join(": ");
}

function chainOf(id: number) {
  return defineChain({
    id, name: "Tesra", nativeCurrency: { name: "Tesra", symbol: "TSR", decimals: 18 }, rpcUrls: { default: { http: [] } },
  });
}

function transportOf(call: RpcCall) {
  let nextRequestId = 1;
  return custom({
    async request({ method, params }: { method: string; params?: unknown }) {
      const response = await call({ jsonrpc: "2.0", id: nextRequestId++, method, params: params ?? [] }) as
        { result?: unknown; error?: { code: number; message: string; data?: unknown } };
      if (response.error) throw Object.assign(new Error(response.error.message), response.error);
      return response.result;
    },
  }, { retryCount: 0 });
}
