// Owns the chain of one node: import, production, fork choice, and the pools beside it. Invariant: the head is
// always the best fully validated block, and everything that a block changes is committed in one batch with the
// head pointer, so a node that dies at any moment reopens at the last committed block.
import { createRules } from "./execution/rules.js";
import { equals, fromHex, keyOf, toHex } from "./bytes.js";
import { ChainError, messageOf } from "./errors.js";
import { encodeBlock, decodeBlock, type Block } from "./block/block.js";
import { BlockIndex } from "./block/block-index.js";
import { headerDigest, sealHeader, type Header, type HeaderFields } from "./block/header.js";
import type { Outcome, Receipt } from "./block/receipt.js";
import { TransactionDecoder, type Transaction } from "./block/transaction.js";
import { orderedTrieRoot } from "./block/trie-root.js";
import { nextBaseFee } from "./consensus/base-fee.js";
import { branchChange, branchWrites, type BranchChange } from "./consensus/branches.js";
import { CertificateChecker, createCertificateVerifier, type AcceptedCertificate, type CertificateVerifier } from "./consensus/certificates.js";
import { blockWeight, nextPowTarget } from "./consensus/difficulty.js";
import { EquivocationWatch, type Equivocation } from "./consensus/equivocation.js";
import { nextModifier, slotAt, stepAt, timestampOf, type Staker } from "./consensus/leader.js";
import { Lottery, type LotteryKeys } from "./consensus/lottery.js";
import { OrphanPool } from "./consensus/orphans.js";
import { checkBody, checkClaim, checkDerived, checkLeader, isBetterHead } from "./consensus/verify-header.js";
import type { CertificateDevice } from "./certificate/miner.js";
import { BlockRun, type BlockResult } from "./execution/block-run.js";
import { fillBlock } from "./execution/fill-block.js";
import { Executor } from "./execution/executor.js";
import { createGenesisBlock } from "./execution/genesis-block.js";
import type { BlockContext, CallRequest, CallResult, ExecutionObserver, Machine } from "./execution/machine.js";
import type { WorldState } from "./execution/state.js";
import { readStakers } from "./execution/system-views.js";
import { checkGenesis, genesisConfigHash, type Genesis } from "./genesis.js";
import { walkLedger, type Ledger } from "./ledger.js";
import { CertificatePool } from "./mempool/certificate-pool.js";
import { Mempool } from "./mempool/mempool.js";
import { Serial } from "./serial.js";
import { blocksAfterLocator, locatorOf } from "./sync.js";
import { table, type Store, type StoreOperation } from "./store/store.js";

export interface ChainOptions {
  store: Store;
  genesis: Genesis;
  /** Speeds up the verification of certificates; the verdicts are the same without. */
  device?: Pick<CertificateDevice, "crmTile" | "blake3">;
  /** Replaces the verification of certificates (tests). */
  verifyCertificate?: CertificateVerifier;
  /** Waits for the disk at each block: survives a power cut. Default true. */
  isDurable?: boolean;
}

export interface Producer extends LotteryKeys {
  /** 65-byte secp256k1 signature (r, s, recovery id) over a 32-byte digest. */
  sign(digest: Uint8Array): Uint8Array | Promise<Uint8Array>;
}

export type ProducerKeys = Producer;

export interface ProducedBlock {
  header: Header;
  block: Block;
  encoded: Uint8Array;
}

export interface ImportResult {
  status: "imported" | "known" | "orphan" | "rejected";
  /** For "rejected": the code of the rule that was broken, then how. */
  reason?: string;
  code?: string;
  head: Header;
}

export type ChainEvent =
  | { type: "head"; header: Header; block: Block; outcome: Outcome }
  | { type: "reorg"; from: Header; to: Header; common: Header; depth: number }
  | { type: "transaction"; hash: Uint8Array; raw: Uint8Array }
  | { type: "certificate"; encoded: Uint8Array }
  | { type: "equivocation"; evidence: Equivocation };

export interface Failure {
  error: { code: string; message: string };
}

/** Why a block was refused, kept so that the same bytes are not validated again. */
const REJECTED_MAX = 1_024;
/** Slots that nextAttemptMs looks ahead; with fewer than one chance in thousands per slot it is asked again. */
const SLOTS_AHEAD_MAX = 16;

export class Chain {
  readonly genesis: Genesis;
  readonly index: BlockIndex;
  readonly decoder: TransactionDecoder;
  readonly mempool: Mempool;
  readonly certificates: CertificatePool;
  private readonly store: Store;
  private readonly executor: Executor;
  private readonly checker: CertificateChecker;
  private readonly orphans = new OrphanPool();
  private readonly equivocations: EquivocationWatch;
  private readonly serial = new Serial();
  private readonly listeners = new Set<(event: ChainEvent) => void>();
  private readonly rejected = new Map<string, { code: string; reason: string }>();
  private readonly lottery: Lottery;
  private readonly isDurable: boolean;
  private current!: Header;
  private headState!: WorldState;
  private genesisBlockHash!: Uint8Array;

  private constructor(options: ChainOptions) {
    this.genesis = options.genesis;
    this.store = options.store;
    this.isDurable = options.isDurable ?? true;
    const common = createRules(options.genesis.chainId);
    this.index = new BlockIndex(options.store);
    this.equivocations = new EquivocationWatch(this.index, options.genesis.consensus.reorganisationBlocksMax);
    this.decoder = new TransactionDecoder(common);
    this.executor = new Executor({ store: options.store, common });
    this.mempool = new Mempool({ gasLimit: BigInt(options.genesis.consensus.gasLimit) });
    this.checker = new CertificateChecker(options.genesis, {
      index: this.index, verify: options.verifyCertificate ?? createCertificateVerifier(options.device),
    });
    this.certificates = new CertificatePool(this.checker);
    this.lottery = new Lottery(options.genesis, {
      index: this.index, store: options.store, readStakers: async (at) => readStakers(await this.machineAt(at)),
    });
  }

  /** Opens the chain in the store, or starts it at the genesis block. Throws ChainError or StoreError. */
  static async open(options: ChainOptions): Promise<Chain> {
    checkGenesis(options.genesis);
    const chain = new Chain(options);
    await chain.load();
    return chain;
  }

  get head(): Header {
    return this.current;
  }

  get genesisHash(): Uint8Array {
    return this.genesisBlockHash;
  }

  get chainId(): bigint {
    return BigInt(this.genesis.chainId);
  }

  /** Shape of the product that a challenge certificate proves. */
  get powDims(): { m: number; n: number; k: number } {
    const { m, n, k } = this.genesis.certificates;
    return { m, n, k };
  }

  /** The target for certificates that name the present head as their tip. */
  get powTarget(): bigint {
    return this.current.powTarget;
  }

  /** Calls the listener after each change, in order. Returns the way to stop. */
  subscribe(listener: (event: ChainEvent) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  // --- what comes in -------------------------------------------------------------------------------------------

  async submitTransaction(raw: Uint8Array): Promise<{ hash: Uint8Array } | Failure> {
    try {
      const transaction = this.decoder.decode(raw);
      const state = this.headState;
      this.mempool.add(transaction, await state.account(transaction.sender));
      this.emit({ type: "transaction", hash: transaction.hash, raw });
      return { hash: transaction.hash };
    } catch (error) {
      return failure(error);
    }
  }

  async addCertificate(encoded: Uint8Array): Promise<{ added: true } | Failure> {
    try {
      this.certificates.add(encoded, this.current);
      this.emit({ type: "certificate", encoded });
      return { added: true };
    } catch (error) {
      return failure(error);
    }
  }

  /** Validates fully, executes, stores, and follows it if it is the best. Never throws on a bad block. */
  importBlock(encoded: Uint8Array, nowMs: number): Promise<ImportResult> {
    return this.serial.run(async () => {
      let block: Block;
      try {
        block = decodeBlock(encoded);
      } catch (error) {
        return this.refusal(error);
      }
      const result = await this.importDecoded(block, nowMs);
      if (result.status === "imported") await this.adoptOrphans(block.header, nowMs);
      return { ...result, head: this.current };
    });
  }

  // --- production ----------------------------------------------------------------------------------------------

  /** Makes, commits and returns the block that the producer is authorised to make now, if any. */
  produce(nowMs: number, producer: Producer): Promise<ProducedBlock | undefined> {
    return this.serial.run(async () => {
      const parent = this.current;
      await this.lottery.stakersAfter(parent);
      const slot = slotAt(nowMs, this.genesis.timestampMs, this.genesis.consensus);
      if (slot <= parent.slot || slot <= this.lottery.lastProducedSlot(producer.address)) return undefined;
      const step = this.lottery.winningStep(parent, slot, producer);
      if (step === undefined || step > stepAt(nowMs, this.genesis.timestampMs, this.genesis.consensus)) return undefined;
      return this.build(parent, slot, step, producer);
    });
  }

  /**
   * When produce() is worth calling: the producer's next authorised moment on the present head, from now on;
   * without keys, the next step at which anybody could be.
   */
  nextAttemptMs(nowMs: number, producer?: LotteryKeys): number {
    const { timestampMs, consensus } = this.genesis;
    if (!producer) {
      const nextStepMs = nowMs + consensus.stepMs - ((nowMs - timestampMs) % consensus.stepMs);
      return Math.max(nextStepMs, timestampOf(this.current.slot + 1, 0, timestampMs, consensus));
    }
    const first = Math.max(slotAt(nowMs, timestampMs, consensus), this.current.slot + 1,
      this.lottery.lastProducedSlot(producer.address) + 1);
    for (let slot = first; slot < first + SLOTS_AHEAD_MAX; slot++) {
      const step = this.lottery.winningStep(this.current, slot, producer);
      if (step !== undefined) return Math.max(nowMs, timestampOf(slot, step, timestampMs, consensus));
    }
    return timestampOf(first + SLOTS_AHEAD_MAX, 0, timestampMs, consensus);
  }

  /** Stakers whose equity counts in the block after the head. */
  stakers(): readonly Staker[] {
    return this.lottery.knownStakersAfter(this.current) ?? [];
  }

  // --- reading -------------------------------------------------------------------------------------------------

  blockByNumber(number: number): Block | undefined {
    const hash = this.index.canonicalHash(number);
    return hash && this.index.block(hash);
  }

  blockByHash(hash: Uint8Array): Block | undefined {
    return this.index.block(hash);
  }

  encodedBlock(hash: Uint8Array): Uint8Array | undefined {
    return this.index.encoded(hash);
  }

  outcomeOf(hash: Uint8Array): Outcome | undefined {
    return this.index.outcome(hash);
  }

  /** Balance and nonce at the head, or at another block. */
  account(address: Uint8Array | string, at: Header = this.current): Promise<{ balance: bigint; nonce: bigint }> {
    const bytes = typeof address === "string" ? fromHex(address) : address;
    return this.stateAt(at).account(bytes);
  }

  stateAt(header: Header): WorldState {
    return equals(header.hash, this.current.hash) ? this.headState : this.executor.stateAt(header.stateRoot);
  }

  /** eth_call: the return data. Throws ChainError "call" that carries the EVM's reason. */
  async read(request: { to: Uint8Array | string; data: Uint8Array | string; block?: Header }): Promise<Uint8Array> {
    const bytes = (value: Uint8Array | string) => (typeof value === "string" ? fromHex(value) : value);
    const header = request.block ?? this.current;
    const result = await this.call({ to: bytes(request.to), data: bytes(request.data), gas: header.gasLimit }, header);
    if (result.failure !== undefined) throw new ChainError("call", `${result.failure} ${toHex(result.output)}`);
    return result.output;
  }

  async call(request: CallRequest, at: Header = this.current): Promise<CallResult> {
    return (await this.machineAt(at)).call(request);
  }

  /** A throw-away machine at a block's state, inside that block's context. */
  async machineAt(at: Header): Promise<Machine> {
    const machine = await this.executor.machineAt(at.stateRoot);
    machine.enter(contextOf(at, at.number === 0 ? at : this.index.header(at.parentHash) ?? at), this.ancestorHashes(at));
    return machine;
  }

  /** Runs a block's transactions again on its parent's state; the observer sees the one at `index` alone. */
  async replay(block: Block, index: number, observer: ExecutionObserver): Promise<Receipt> {
    const parent = this.index.header(block.header.parentHash);
    if (!parent) throw new ChainError("corrupt", `the parent of block ${block.header.number} is missing`);
    const machine = await this.executor.machineAt(parent.stateRoot);
    const run = new BlockRun(machine, this.genesis, contextOf(block.header, parent), this.ancestorHashes(parent));
    const [last, ...before] = block.transactions.slice(0, index + 1).map((raw) => this.decoder.decode(raw)).reverse();
    for (const transaction of before.reverse()) await run.transact(transaction);
    await machine.observed(observer, () => run.transact(last!));
    return run.receipts[index]!;
  }

  /** Every account of the state at the head; the total must be the supply, exactly. */
  ledger(): Promise<Ledger> {
    return walkLedger(this.store, this.current.stateRoot);
  }

  /** Blocks on top of and including the transaction's own; 0 while it is not in a block of this chain. */
  confirmations(transactionHash: Uint8Array): number {
    const place = this.index.place(transactionHash);
    const header = place && this.index.header(place.blockHash);
    return header ? this.current.number - header.number + 1 : 0;
  }

  /** Multiply-adds up to the head: of settled tasks, and of certificates. */
  usefulWork(): { useful: bigint; certificates: bigint; certificateCount: number; rewards: bigint } {
    const outcome = this.index.outcome(this.current.hash)!;
    return {
      useful: outcome.usefulMultiplyAddsTotal, certificates: outcome.certificateMultiplyAddsTotal,
      certificateCount: outcome.certificatesTotal, rewards: outcome.rewardsTotal,
    };
  }

  // --- synchronisation -----------------------------------------------------------------------------------------

  /** Hashes of the canonical chain, dense near the head and ever sparser towards genesis. */
  ancestorsLocator(): Uint8Array[] {
    return locatorOf(this.index, this.current, this.genesisBlockHash);
  }

  /** Encoded canonical blocks after the first locator hash that is on this chain; none where no hash is. */
  blocksAfter(locator: readonly Uint8Array[], max: number): Uint8Array[] {
    return blocksAfterLocator(this.index, this.current, locator, max);
  }

  // --- inside --------------------------------------------------------------------------------------------------

  private async load(): Promise<void> {
    const stored = this.store.get(table.genesis);
    if (stored === undefined) {
      const { block, outcome, writes } = await createGenesisBlock(this.genesis, this.executor);
      const { hash } = block.header;
      this.store.write([
        ...writes, ...this.index.writesOf(block, outcome), { key: table.canonical(0), value: hash },
        { key: table.head, value: hash }, { key: table.genesis, value: hash },
      ], { sync: true });
      this.index.remember(block, outcome);
      this.genesisBlockHash = hash;
      await this.setHead(block.header);
      return;
    }
    // The parent hash of block 0 is the hash of the genesis document, so nothing need be executed to compare.
    const configHash = this.index.header(stored)?.parentHash;
    const expected = genesisConfigHash(this.genesis);
    if (!configHash || !equals(configHash, expected)) {
      throw new ChainError("genesis", `the store at ${this.store.location} belongs to the network with genesis document `
        + `${configHash ? toHex(configHash) : "(missing)"}, the given one is ${toHex(expected)}; use the matching genesis file or another directory`);
    }
    this.genesisBlockHash = stored;
    const headHash = this.store.get(table.head);
    const head = headHash && this.index.header(headHash);
    if (!head || this.store.get(table.state(head.stateRoot)) === undefined) {
      throw new ChainError("corrupt", `the store at ${this.store.location} has no head block; synchronise again from an empty directory`);
    }
    await this.setHead(head);
  }

  private async importDecoded(block: Block, nowMs: number): Promise<ImportResult> {
    const { header } = block;
    const key = keyOf(header.hash);
    if (this.index.has(header.hash)) return { status: "known", head: this.current };
    const refused = this.rejected.get(key);
    if (refused) return { status: "rejected", ...refused, head: this.current };
    try {
      checkBody(block);
    } catch (error) {
      return this.refusal(error);
    }
    try {
      checkClaim(block, this.genesis, nowMs);
      const evidence = this.equivocations.note(header, this.current);
      if (evidence) this.emit({ type: "equivocation", evidence });
      const parent = this.index.header(header.parentHash);
      if (!parent) return this.keepOrphan(block);
      if (this.current.number - parent.number > this.genesis.consensus.reorganisationBlocksMax) {
        throw new ChainError("too-deep", `forks ${this.current.number - parent.number} blocks below the head, `
          + `at most ${this.genesis.consensus.reorganisationBlocksMax} are allowed`);
      }
      const accepted = this.checker.checkBlock(block.certificates, parent);
      checkDerived(block, parent, accepted.map((each) => each.target), this.genesis);
      checkLeader(header, await this.lottery.stakersAfter(parent), this.lottery.modifierAfter(parent), this.genesis);
      const transactions = block.transactions.map((raw) => this.decoder.decode(raw));
      const result = await this.execute(parent, header, transactions, accepted);
      await this.commit(block, result, transactions);
      return { status: "imported", head: this.current };
    } catch (error) {
      if (!(error instanceof ChainError) || error.code === "corrupt") throw error;
      if (error.code !== "future" && error.code !== "too-deep") this.rememberRejected(key, error);
      return this.refusal(error);
    }
  }

  private keepOrphan(block: Block): ImportResult {
    const { reorganisationBlocksMax } = this.genesis.consensus;
    if (block.header.number + reorganisationBlocksMax < this.current.number) {
      throw new ChainError("too-deep", `block ${block.header.number} is too far below the head ${this.current.number}`);
    }
    this.orphans.add(block);
    return { status: "orphan", head: this.current };
  }

  private async adoptOrphans(header: Header, nowMs: number): Promise<void> {
    const waiting = [header.hash];
    for (let hash = waiting.pop(); hash; hash = waiting.pop()) {
      for (const child of this.orphans.takeChildren(hash)) {
        const result = await this.importDecoded(child, nowMs);
        if (result.status === "imported") waiting.push(child.header.hash);
      }
    }
  }

  /** Runs the block on its parent's state and compares every root with what the header promised. */
  private execute(parent: Header, header: Header, transactions: readonly Transaction[],
    certificates: readonly AcceptedCertificate[]): Promise<BlockResult> {
    return this.executor.withMachine(parent.stateRoot, async (machine) => {
      const run = new BlockRun(machine, this.genesis, contextOf(header, parent), this.ancestorHashes(parent));
      for (const transaction of transactions) await run.transact(transaction);
      const result = await run.finish(certificates, this.index.outcome(parent.hash)!);
      if (result.gasUsed !== header.gasUsed) throw new ChainError("gas-used", `gas used is ${result.gasUsed}, the header says ${header.gasUsed}`);
      for (const [code, found, promised] of [
        ["state-root", result.stateRoot, header.stateRoot], ["receipts-root", result.receiptsRoot, header.receiptsRoot],
        ["logs-bloom", result.logsBloom, header.logsBloom],
      ] as const) {
        if (!equals(found, promised)) throw new ChainError(code, `execution gives ${toHex(found).slice(0, 66)}, the header says ${toHex(promised).slice(0, 66)}`);
      }
      return { value: result, root: result.stateRoot };
    });
  }

  private async build(parent: Header, slot: number, step: number, producer: Producer): Promise<ProducedBlock> {
    const { genesis } = this;
    const certificates = this.certificates.select(parent, genesis.certificates.perBlockMax);
    const vrfProof = this.lottery.proof(parent, slot, producer);
    const certificatesRoot = orderedTrieRoot(certificates.map((each) => each.encoded));
    const draft = {
      parentHash: parent.hash, number: parent.number + 1, gasLimit: BigInt(genesis.consensus.gasLimit),
      timestampMs: timestampOf(slot, step, genesis.timestampMs, genesis.consensus), baseFeePerGas: nextBaseFee(parent),
      coinbase: producer.address, slot, step, vrfProof, certificatesRoot,
      modifier: nextModifier(parent.modifier, vrfProof, certificatesRoot),
      powTarget: nextPowTarget(parent.powTarget, certificates.length, genesis.certificates),
      totalWeight: parent.totalWeight + blockWeight(certificates.map((each) => each.target), genesis.certificates),
      extraData: new Uint8Array(0),
    };
    const built = await this.executor.withMachine(parent.stateRoot, async (machine) => {
      const run = new BlockRun(machine, genesis, contextOf(draft, parent), this.ancestorHashes(parent));
      const transactions = await fillBlock(run, this.mempool, draft.baseFeePerGas);
      const result = await run.finish(certificates, this.index.outcome(parent.hash)!);
      return { value: { transactions, result }, root: result.stateRoot };
    });
    const { transactions, result } = built;
    const fields: HeaderFields = {
      ...draft, stateRoot: result.stateRoot, receiptsRoot: result.receiptsRoot, logsBloom: result.logsBloom,
      gasUsed: result.gasUsed, transactionsRoot: orderedTrieRoot(transactions.map((each) => each.raw)),
    };
    const header = sealHeader(fields, await producer.sign(headerDigest(fields, BigInt(genesis.chainId))));
    const block: Block = {
      header, transactions: transactions.map((each) => each.raw), certificates: certificates.map((each) => each.encoded),
    };
    await this.commit(block, result, transactions, [this.lottery.recordProduced(producer.address, slot)]);
    return { header, block, encoded: encodeBlock(block) };
  }

  private async commit(block: Block, result: BlockResult, transactions: readonly Transaction[],
    extra: readonly StoreOperation[] = []): Promise<void> {
    const { header } = block;
    const from = this.current;
    const isHead = isBetterHead(header, from);
    const change = isHead ? branchChange(this.index, from, header) : undefined;
    // the new block itself is not in the index yet
    const transactionsOf = (each: Header) => (each === header ? transactions : this.transactionsOf(each));
    const operations = [...result.writes, ...this.index.writesOf(block, result.outcome), ...extra];
    if (change) operations.push(...branchWrites(change, header, transactionsOf));
    this.store.write(operations, { sync: this.isDurable });
    this.index.remember(block, result.outcome);
    if (!change) return;
    await this.setHead(header);
    await this.updatePools(change, transactionsOf);
    if (change.abandoned.length > 0) {
      this.emit({ type: "reorg", from, to: header, common: change.common, depth: change.abandoned.length });
    }
    this.emit({ type: "head", header, block, outcome: result.outcome });
  }

  private async updatePools(change: BranchChange, transactionsOf: (header: Header) => readonly Transaction[]): Promise<void> {
    const touched = new Map<string, Uint8Array>();
    for (const adopted of change.adopted) {
      for (const transaction of transactionsOf(adopted)) {
        this.mempool.drop(transaction);
        touched.set(transaction.senderKey, transaction.sender);
      }
    }
    const abandoned = change.abandoned.flatMap((header) => this.transactionsOf(header));
    for (const transaction of abandoned) touched.set(transaction.senderKey, transaction.sender);
    for (const [key, sender] of touched) this.mempool.refresh(key, await this.headState.account(sender));
    abandoned.sort((a, b) => (a.tx.nonce < b.tx.nonce ? -1 : 1));
    for (const transaction of abandoned) {
      if (this.index.place(transaction.hash)) continue; // the new branch has it as well
      try {
        this.mempool.add(transaction, await this.headState.account(transaction.sender));
      } catch {
        // spent otherwise on the new branch, or the pool is full of better ones
      }
    }
    this.certificates.prune(this.current);
  }

  private async setHead(header: Header): Promise<void> {
    await this.lottery.stakersAfter(header); // so that production and queries find it at once
    this.current = header;
    this.headState = this.executor.stateAt(header.stateRoot);
  }

  private transactionsOf(header: Header): Transaction[] {
    return (this.index.block(header.hash)?.transactions ?? []).map((raw) => this.decoder.decode(raw));
  }

  private ancestorHashes(parent: Header): (number: number) => Uint8Array {
    return (number) => this.index.ancestor(parent, number).hash;
  }

  private rememberRejected(key: string, error: ChainError): void {
    if (this.rejected.size >= REJECTED_MAX) this.rejected.delete(this.rejected.keys().next().value!);
    this.rejected.set(key, { code: error.code, reason: `${error.code}: ${error.message}` });
  }

  private refusal(error: unknown): ImportResult {
    const code = error instanceof ChainError ? error.code : "invalid";
    return { status: "rejected", code, reason: `${code}: ${messageOf(error)}`, head: this.current };
  }

  private emit(event: ChainEvent): void {
    for (const listener of this.listeners) listener(event);
  }
}

function contextOf(header: Pick<HeaderFields, "number" | "timestampMs" | "coinbase" | "gasLimit" | "baseFeePerGas">, parent: Header): BlockContext {
  return {
    number: header.number, timestamp: Math.floor(header.timestampMs / 1000), coinbase: header.coinbase,
    gasLimit: header.gasLimit, baseFeePerGas: header.baseFeePerGas, random: parent.modifier,
  };
}

function failure(error: unknown): Failure {
  const code = error instanceof ChainError ? error.code : "invalid";
  return { error: { code, message: messageOf(error) } };
}
