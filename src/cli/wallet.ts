/**
 * Owns `supernet wallet`: keys made, imported and listed; balances; transfers.
 * Invariant: a private key is in memory only for the call that needs it, and on disk only
 * encrypted; a phrase is shown once, at its making.
 */
import type { Command } from "commander";
import type { CliContext } from "./context.js";
import { UserError } from "./errors.js";
import type { Account } from "./keystore.js";
import { wholeNumber } from "./options.js";

/** BIP-44 path of Ethereum accounts, which tools and hardware wallets share. */
const PATH = "m/44'/60'/0'/0/";
/** Strengths of BIP-39 in bits by number of words. */
const WORDS = new Map([["12", 128], ["15", 160], ["18", 192], ["21", 224], ["24", 256]]);
const INDEX_MAX = 2 ** 31 - 1;

interface KeyOptions {
  name?: string;
  passwordFile?: string;
  index: string;
  light?: boolean;
}

export function register(program: Command, context: CliContext): void {
  const wallet = program.command("wallet").description("keys, balances and transfers");
  const withKey = (command: Command) => command
    .option("--name <name>", "name of the account")
    .option("--index <n>", "number of the account under the phrase", "0")
    .option("--password-file <file>", "first line is the password (\"-\": standard input)")
    .option("--light", "weaker encryption that opens at once, for devnets");

  withKey(wallet.command("create"))
    .description("make a recovery phrase and store its key, encrypted")
    .option("--words <n>", "length of the phrase: 12, 15, 18, 21 or 24", "24")
    .addHelpText("after", `
The phrase is printed once and not stored: write it down.
The password comes from --password-file, TESRA_PASSWORD or a prompt.

Examples:
  $ supernet wallet create --name me
  $ TESRA_PASSWORD=... supernet wallet create --words 12 -o json`)
    .action((options: KeyOptions & { words: string }) => create(context, options));

  withKey(wallet.command("import"))
    .description("store a key from a phrase, a raw key or a key file, encrypted")
    .option("--phrase-file <file>", "BIP-39 phrase (\"-\": standard input)")
    .option("--key-file <file>", "private key, 64 hex digits (\"-\": standard input)")
    .option("--keystore-file <file>", "key file of geth, ethers or another wallet")
    .addHelpText("after", `
Examples:
  $ supernet wallet import --phrase-file phrase.txt --index 1 --name second
  $ pass show tesra | supernet wallet import --key-file - --password-file pw.txt
  $ supernet wallet import --keystore-file ~/.ethereum/keystore/UTC--...`)
    .action((options: ImportOptions) => importKey(context, options));

  wallet.command("list")
    .description("accounts of the keystore")
    .addHelpText("after", "\nExample:\n  $ supernet wallet list -o json")
    .action(() => list(context));

  wallet.command("address").argument("[account]", "name or address")
    .description("print the address of an account")
    .addHelpText("after", "\nExample:\n  $ supernet wallet address me")
    .action((name?: string) => address(context, name));

  wallet.command("balance").argument("[account]", "name, or any 0x address")
    .description("balance of an account at the head of the chain")
    .addHelpText("after", `
Examples:
  $ supernet wallet balance me
  $ supernet wallet balance 0x52908400098527886E0F7030069857D2E4169EE7 --rpc http://host:8545`)
    .action((name?: string) => balance(context, name));

  wallet.command("send")
    .description("send TSR and wait until the transaction is in a block")
    .requiredOption("--to <address>", "receiver, 0x address or name in the keystore")
    .requiredOption("--amount <tsr>", "amount in TSR, up to 18 decimals")
    .option("--from <account>", "name or address of the sender")
    .option("--password-file <file>", "first line is the password (\"-\": standard input)")
    .option("--confirmations <n>", "blocks to wait for; 0 does not wait", "1")
    .addHelpText("after", `
Examples:
  $ supernet wallet send --from me --to 0x5290...9EE7 --amount 1.5
  $ supernet wallet send --to friend --amount 100 --confirmations 6 -o json`)
    .action((options: SendOptions) => send(context, options));
}

async function create(context: CliContext, options: KeyOptions & { words: string }): Promise<void> {
  const bits = WORDS.get(options.words);
  if (bits === undefined) {
    throw new UserError(`--words: expected 12, 15, 18, 21 or 24, got ${options.words}`);
  }
  const { generateMnemonic } = await import("@scure/bip39");
  const { wordlist } = await import("@scure/bip39/wordlists/english.js");
  const phrase = generateMnemonic(wordlist, bits);
  const account = await store(context, await keyOfPhrase(phrase, options.index), options);
  const output = await context.output();
  output.record({ ...account, path: PATH + options.index, phrase });
  output.note("Write the phrase down and keep it secret: it is the only way back to this account, "
    + "and it is not stored.");
}

interface ImportOptions extends KeyOptions {
  phraseFile?: string;
  keyFile?: string;
  keystoreFile?: string;
}

async function importKey(context: CliContext, options: ImportOptions): Promise<void> {
  const { phraseFile, keyFile, keystoreFile, passwordFile } = options;
  const sources = [phraseFile, keyFile, keystoreFile].filter((source) => source !== undefined);
  if (sources.length !== 1) {
    throw new UserError("give one of --phrase-file, --key-file and --keystore-file, "
      + `got ${sources.length}`);
  }
  if (sources[0] === "-" && passwordFile === "-") {
    throw new UserError("standard input cannot be both the key and the password: give a file for one");
  }
  const { readSecret } = await import("./secrets.js");
  let key: Uint8Array;
  if (phraseFile !== undefined) {
    const phrase = await readSecret(context.world, phraseFile, "phrase");
    key = await keyOfPhrase(phrase.trim().toLowerCase().split(/\s+/).join(" "), options.index);
  } else if (keyFile !== undefined) {
    key = await rawKey(await readSecret(context.world, keyFile, "private key"), keyFile);
  } else {
    const { decryptKey, readKeyFile } = await import("./keystore.js");
    const { resolve } = await import("node:path");
    const path = resolve(context.world.cwd, keystoreFile!);
    key = await decryptKey(await readKeyFile(path), await password(context, options, false), path);
  }
  (await context.output()).record(await store(context, key, options));
}

async function list(context: CliContext): Promise<void> {
  const { listAccounts } = await import("./keystore.js");
  const { keystore } = await context.settings();
  const accounts = await checksummed(await listAccounts(keystore));
  const output = await context.output();
  output.list(accounts, [
    { title: "NAME", value: (row) => row.name },
    { title: "ADDRESS", value: (row) => row.address },
    { title: "FILE", value: (row) => row.file },
  ]);
  if (accounts.length === 0) output.note(`No key in ${keystore}: make one by \`supernet wallet create\`.`);
}

async function address(context: CliContext, name: string | undefined): Promise<void> {
  const account = (await checksummed([await accountNamed(context, name)]))[0]!;
  const output = await context.output();
  if (output.format === "table") output.text(account.address);
  else output.record(account);
}

async function balance(context: CliContext, name: string | undefined): Promise<void> {
  const { connectRpc, guard } = await import("./rpc.js");
  const { formatEther } = await import("viem");
  const { rpc } = await context.settings();
  const who = await addressNamed(context, name);
  const client = connectRpc(rpc);
  const [amount, transactions] = await guard(rpc, () => Promise.all([
    client.viem.getBalance({ address: who }), client.viem.getTransactionCount({ address: who }),
  ]));
  (await context.output()).record({
    address: who, balance: formatEther(amount), unit: "TSR", smallest: amount, transactions,
  });
}

interface SendOptions {
  to: string;
  amount: string;
  from?: string;
  passwordFile?: string;
  confirmations: string;
}

async function send(context: CliContext, options: SendOptions): Promise<void> {
  const value = await amountOf(options.amount);
  const confirmations = wholeNumber("--confirmations", options.confirmations, 0, 1_000);
  const to = await addressNamed(context, options.to);
  const from = await accountNamed(context, options.from);
  const { rpc } = await context.settings();
  const { decryptKey, readKeyFile } = await import("./keystore.js");
  const { chainOf, connectRpc, guard, transport } = await import("./rpc.js");
  const { bytesToHex, createWalletClient, formatEther } = await import("viem");
  const { privateKeyToAccount } = await import("viem/accounts");

  const client = connectRpc(rpc);
  const id = await guard(rpc, () => client.viem.getChainId()); // before the password is asked for
  const secret = await password(context, options, false);
  const key = await decryptKey(await readKeyFile(from.file), secret, from.file);
  const account = privateKeyToAccount(bytesToHex(key));
  const wallet = createWalletClient({ account, chain: chainOf(id), transport: transport(rpc) });

  const [held, fees, gas] = await guard(rpc, () => Promise.all([
    client.viem.getBalance({ address: account.address }),
    client.viem.estimateFeesPerGas({ chain: chainOf(id) }),
    client.viem.estimateGas({ account: account.address, to, value: 0n }),
  ]));
  const cost = value + gas * fees.maxFeePerGas;
  if (held < cost) {
    throw new UserError(`${account.address} holds ${formatEther(held)} TSR: not enough for `
      + `${options.amount} TSR and a fee of up to ${formatEther(gas * fees.maxFeePerGas)} TSR`);
  }
  const output = await context.output();
  const hash = await guard(rpc, () => wallet.sendTransaction({ to, value, gas, ...fees }));
  const sent = {
    hash, from: account.address, to, amount: formatEther(value), unit: "TSR" as const,
  };
  if (confirmations === 0) return output.record({ ...sent, status: "sent" });
  output.note(`Sent ${hash}; waiting for ${confirmations} confirmation(s).`);
  const receipt = await guard(rpc, () =>
    client.viem.waitForTransactionReceipt({ hash, confirmations, pollingInterval: 250 }));
  output.record({ ...sent, status: receipt.status, block: receipt.blockNumber });
  if (receipt.status !== "success") context.setExitCode(1);
}

async function store(
  context: CliContext, key: Uint8Array, options: KeyOptions,
): Promise<Account> {
  const { saveKey } = await import("./keystore.js");
  const { keystore } = await context.settings();
  const secret = await password(context, options, true);
  const account = await saveKey(keystore, key, secret, {
    ...(options.name === undefined ? {} : { name: nameOf(options.name) }),
    cost: options.light ? "light" : "standard", now: new Date(),
  });
  return (await checksummed([account]))[0]!;
}

async function password(
  context: CliContext, options: { passwordFile?: string }, confirm: boolean,
): Promise<string> {
  const { readPassword } = await import("./secrets.js");
  return readPassword(context.world, options.passwordFile, { confirm });
}

async function keyOfPhrase(phrase: string, index: string): Promise<Uint8Array> {
  const { mnemonicToSeed, validateMnemonic } = await import("@scure/bip39");
  const { wordlist } = await import("@scure/bip39/wordlists/english.js");
  const { HDKey } = await import("@scure/bip32");
  const number = wholeNumber("--index", index, 0, INDEX_MAX);
  if (!validateMnemonic(phrase, wordlist)) {
    throw new UserError(`the phrase is no BIP-39 phrase: expected 12 to 24 English words with a `
      + `valid checksum, got ${phrase.split(" ").length} words`);
  }
  return HDKey.fromMasterSeed(await mnemonicToSeed(phrase)).derive(PATH + number).privateKey!;
}

async function rawKey(text: string, file: string): Promise<Uint8Array> {
  const { isPrivateKey } = await import("../chain/certificate/secp256k1.js");
  const digits = text.trim().replace(/^0x/, "");
  const key = Buffer.from(/^[0-9a-fA-F]{64}$/.test(digits) ? digits : "", "hex");
  if (!isPrivateKey(key)) {
    throw new UserError(`${file} holds no private key: expected 64 hex digits, a number from 1 to `
      + "the order of secp256k1"); // what came is a secret: it is not repeated
  }
  return key;
}

async function accountNamed(context: CliContext, name: string | undefined): Promise<Account> {
  const { findAccount } = await import("./keystore.js");
  const { keystore, account } = await context.settings();
  return findAccount(keystore, name ?? account);
}

/** An address as it is, with its checksum checked, or that of an account of the keystore. */
async function addressNamed(
  context: CliContext, name: string | undefined,
): Promise<`0x${string}`> {
  if (name === undefined || !/^0x/i.test(name)) {
    return (await accountNamed(context, name)).address as `0x${string}`;
  }
  const { isAddress } = await import("viem");
  const text = /^0x[0-9A-F]{40}$/.test(name) ? name.toLowerCase() : name;
  if (!isAddress(text)) {
    throw new UserError(`"${name}" is no address: expected 0x and 40 hex digits`
      + (/^0x[0-9a-fA-F]{40}$/.test(name) ? " with a right checksum (upper and lower case)" : ""));
  }
  return text;
}

async function checksummed<T extends Account>(accounts: readonly T[]): Promise<T[]> {
  const { getAddress } = await import("viem");
  return accounts.map((account) => ({ ...account, address: getAddress(account.address) }));
}

async function amountOf(text: string): Promise<bigint> {
  if (!/^\d{1,11}(\.\d{1,18})?$/.test(text)) {
    throw new UserError(`--amount: expected TSR as a decimal with at most 18 places, got "${text}"`);
  }
  const { parseEther } = await import("viem");
  const value = parseEther(text);
  if (value === 0n) throw new UserError("--amount: expected more than 0 TSR, got 0");
  return value;
}

function nameOf(name: string): string {
  if (/^[\p{L}\p{N}][\p{L}\p{N} ._-]{0,63}$/u.test(name) && !/^0x/i.test(name)) return name;
  throw new UserError(`--name: expected 1 to 64 letters, digits, spaces, ".", "_" or "-", not `
    + `starting with 0x, got "${name}"`);
}
