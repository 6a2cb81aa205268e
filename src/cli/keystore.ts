/**
 * Owns key files: Web3 Secret Storage version 3 (scrypt or pbkdf2, aes-128-ctr, keccak mac), which
 * geth, ethers and wallets read and write.
 * Invariant: a key is on disk only encrypted, in a file of mode 0600 that appears whole or not at
 * all; a wrong password and a damaged file are told apart from nothing else but the mac.
 */
import {
  createCipheriv, createDecipheriv, pbkdf2, randomBytes, randomUUID, scrypt, timingSafeEqual,
} from "node:crypto";
import { link, mkdir, open, readdir, readFile, unlink } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { scryptAsync } from "@noble/hashes/scrypt.js";
import { keccak_256 } from "@noble/hashes/sha3.js";
import { z } from "zod";
import { publicKeyOf, isPrivateKey, uncompressed } from "../chain/certificate/secp256k1.js";
import { checkInput } from "./config.js";
import { fileFault, UserError } from "./errors.js";

/** scrypt costs: `standard` is geth's (about 1 s, 256 MiB), `light` for devnets (4 MiB). */
export const KDF_COSTS = {
  standard: { n: 2 ** 18, r: 8, p: 1 },
  light: { n: 2 ** 12, r: 8, p: 6 },
} as const;

/** A file may ask for this much memory at most (geth's standard asks for 256 MiB). */
const SCRYPT_MEMORY_BYTES_MAX = 1 << 30;
/** scrypt's p and pbkdf2's count multiply time: bounds against a file made to hang the reader. */
const SCRYPT_P_MAX = 16;
const PBKDF2_ROUNDS_MAX = 10_000_000;
/** A key file is below 1 KiB; anything larger is none. */
const FILE_BYTES_MAX = 64 * 1024;

const hex = z.string().regex(/^(0x)?([0-9a-fA-F]{2})*$/, "hex digits");
const natural = z.number().int().min(1);
const KeyFileSchema = z.object({
  version: z.literal(3),
  id: z.string().optional(),
  address: hex.optional(),
  name: z.string().max(64).optional(),
  crypto: z.object({
    cipher: z.literal("aes-128-ctr"),
    ciphertext: hex,
    cipherparams: z.object({ iv: hex }),
    mac: hex,
    kdf: z.enum(["scrypt", "pbkdf2"]),
    kdfparams: z.object({
      dklen: z.literal(32), salt: hex,
      n: natural.optional(), r: natural.optional(), p: natural.optional(),
      c: natural.optional(), prf: z.literal("hmac-sha256").optional(),
    }),
  }),
});
type KeyFile = z.infer<typeof KeyFileSchema>;

/** A key file as listed. */
export interface Account {
  /** 0x and 40 lower-case digits. */
  readonly address: string;
  readonly name?: string | undefined;
  readonly file: string;
}

/** Encrypts a 32-byte secp256k1 key. The result is JSON text. */
export async function encryptKey(
  privateKey: Uint8Array, password: string,
  options: { name?: string; cost?: keyof typeof KDF_COSTS } = {},
): Promise<string> {
  const { n, r, p } = KDF_COSTS[options.cost ?? "standard"];
  const salt = randomBytes(32);
  const iv = randomBytes(16);
  const derived = await scryptKey(password, salt, n, r, p);
  const cipher = createCipheriv("aes-128-ctr", derived.subarray(0, 16), iv);
  const ciphertext = Buffer.concat([cipher.update(privateKey), cipher.final()]);
  const file = {
    version: 3, id: randomUUID(), address: addressOf(privateKey).slice(2),
    ...(options.name === undefined ? {} : { name: options.name }),
    crypto: {
      cipher: "aes-128-ctr", ciphertext: ciphertext.toString("hex"),
      cipherparams: { iv: iv.toString("hex") },
      kdf: "scrypt", kdfparams: { dklen: 32, n, r, p, salt: salt.toString("hex") },
      mac: mac(derived, ciphertext).toString("hex"),
    },
  };
  return `${JSON.stringify(file, null, 2)}\n`;
}

/** Decrypts key file text. Throws UserError for a file that is none, or a wrong password. */
export async function decryptKey(
  source: string, password: string, path: string,
): Promise<Uint8Array> {
  const { crypto, address } = parseKeyFile(source, path);
  const ciphertext = bytes(crypto.ciphertext);
  const derived = await deriveKey(crypto, password, path);
  if (!equal(mac(derived, ciphertext), bytes(crypto.mac))) {
    throw new UserError(`the password does not open ${path} (or the file is damaged)`);
  }
  const cipher = createDecipheriv(
    "aes-128-ctr", derived.subarray(0, 16), bytes(crypto.cipherparams.iv));
  const privateKey = Buffer.concat([cipher.update(ciphertext), cipher.final()]);
  if (!isPrivateKey(privateKey)) throw new UserError(`${path} holds no secp256k1 key`);
  const found = addressOf(privateKey);
  if (address !== undefined && `0x${address.replace(/^0x/, "").toLowerCase()}` !== found) {
    throw new UserError(`${path} says it is the key of ${address}, but it is the key of ${found}`);
  }
  return privateKey;
}

/** Writes a key file into the folder (made with mode 0700). Never replaces a file. */
export async function saveKey(
  folder: string, privateKey: Uint8Array, password: string,
  options: { name?: string; cost?: keyof typeof KDF_COSTS; now: Date },
): Promise<Account> {
  const address = addressOf(privateKey);
  for (const account of await listAccounts(folder)) {
    if (account.address === address) throw new UserError(`${address} is already in ${account.file}`);
    if (options.name !== undefined && account.name === options.name) {
      throw new UserError(`the name "${options.name}" is taken by ${account.address}; choose another`);
    }
  }
  const text = await encryptKey(privateKey, password, options);
  const stamp = options.now.toISOString().replace(/:/g, "-");
  const file = join(folder, `UTC--${stamp}--${address.slice(2)}`);
  const draft = join(folder, `.${randomUUID()}.new`);
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const handle = await open(draft, "wx", 0o600);
    try {
      await handle.writeFile(text);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await link(draft, file); // unlike rename it fails if the name exists
  } catch (error) {
    throw fileFault("write the key file", file, error);
  } finally {
    await unlink(draft).catch(() => {});
  }
  return { address, name: options.name, file };
}

/** Key files of a folder, oldest first. A folder that does not exist has none. */
export async function listAccounts(folder: string): Promise<Account[]> {
  let names: string[];
  try {
    names = await readdir(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw fileFault("read the keystore", folder, error);
  }
  const accounts: Account[] = [];
  for (const entry of names.sort()) {
    if (entry.startsWith(".")) continue;
    const file = join(folder, entry);
    const { address, name } = parseKeyFile(await readKeyFile(file), file);
    if (address === undefined) continue; // allowed by the format; such a file is named by path
    accounts.push({ address: `0x${address.replace(/^0x/, "").toLowerCase()}`, name, file });
  }
  return accounts;
}

/** The account of that name or address. Throws UserError that lists what there is. */
export async function findAccount(folder: string, wanted: string | undefined): Promise<Account> {
  const accounts = await listAccounts(folder);
  if (accounts.length === 0) {
    throw new UserError(`there is no key in ${folder}; make one by \`supernet wallet create\``);
  }
  if (wanted === undefined) {
    if (accounts.length === 1) return accounts[0]!;
    throw new UserError(`${folder} has ${accounts.length} accounts: name one (${names(accounts)})`);
  }
  const found = accounts.find((account) =>
    account.name === wanted || account.address === wanted.toLowerCase());
  if (!found) throw new UserError(`no account "${wanted}" in ${folder}; it has ${names(accounts)}`);
  return found;
}

/** Text of a key file, of a sane size. */
export async function readKeyFile(path: string): Promise<string> {
  try {
    const source = await readFile(path);
    if (source.length > FILE_BYTES_MAX) throw new Error(`${source.length} bytes is no key file`);
    return source.toString("utf8");
  } catch (error) {
    throw fileFault("read the key file", path, error);
  }
}

/** Lower-case 0x address of a private key. */
export function addressOf(privateKey: Uint8Array): string {
  const hash = keccak_256(uncompressed(publicKeyOf(privateKey)));
  return `0x${Buffer.from(hash.subarray(12)).toString("hex")}`;
}

function parseKeyFile(source: string, path: string): KeyFile {
  let json: unknown;
  try {
    json = JSON.parse(source);
  } catch {
    throw new UserError(`${path} is no key file: expected JSON (Web3 Secret Storage version 3)`);
  }
  // Some writers say "Crypto".
  if (json !== null && typeof json === "object" && "Crypto" in json && !("crypto" in json)) {
    json = { ...json, crypto: json.Crypto };
  }
  return checkInput(KeyFileSchema, json, (key) => `${path} is no key file: key "${key}"`);
}

async function deriveKey(
  { kdf, kdfparams }: KeyFile["crypto"], password: string, path: string,
): Promise<Buffer> {
  const { n, r, p, c } = kdfparams;
  const salt = bytes(kdfparams.salt);
  if (kdf === "scrypt") {
    if (n === undefined || r === undefined || p === undefined || (n & (n - 1)) !== 0 || n < 2
      || 128 * n * r > SCRYPT_MEMORY_BYTES_MAX || p > SCRYPT_P_MAX) {
      throw new UserError(`${path} asks for scrypt n=${n} r=${r} p=${p}: expected n a power of 2, `
        + `at most ${SCRYPT_MEMORY_BYTES_MAX >> 20} MiB and p at most ${SCRYPT_P_MAX}`);
    }
    return scryptKey(password, salt, n, r, p);
  }
  if (c === undefined || c > PBKDF2_ROUNDS_MAX) {
    throw new UserError(`${path} asks for ${c} rounds: expected 1..${PBKDF2_ROUNDS_MAX}`);
  }
  return promisify(pbkdf2)(Buffer.from(password.normalize("NFKC")), salt, c, 32, "sha256");
}

function scryptKey(
  password: string, salt: Uint8Array, n: number, r: number, p: number,
): Promise<Buffer> {
  const input = Buffer.from(password.normalize("NFKC"));
  if (r === 1 && n >= 2 ** 16) {
    // OpenSSL refuses n >= 2^(16r) (RFC 7914); the format's own vector has it, and so may files.
    return scryptAsync(input, salt, { N: n, r, p, dkLen: 32, maxmem: 2 * SCRYPT_MEMORY_BYTES_MAX })
      .then((key) => Buffer.from(key));
  }
  const maxmem = 128 * n * r + 128 * r * p + (1 << 20); // Node counts the blocks beside the table
  return new Promise((done, fail) => {
    scrypt(input, salt, 32, { N: n, r, p, maxmem }, (error, key) => {
      if (error) fail(error);
      else done(key);
    });
  });
}

function mac(derived: Uint8Array, ciphertext: Uint8Array): Buffer {
  return Buffer.from(keccak_256(Buffer.concat([derived.subarray(16, 32), ciphertext])));
}

const bytes = (text: string) => Buffer.from(text.replace(/^0x/, ""), "hex");
const equal = (a: Uint8Array, b: Uint8Array) => a.length === b.length && timingSafeEqual(a, b);
const names = (accounts: readonly Account[]) =>
  accounts.map(({ address, name }) => name ?? address).join(", ");
