import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Wallet, encryptKeystoreJson, getAddress } from "ethers";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  addressOf, decryptKey, encryptKey, findAccount, listAccounts, saveKey,
} from "../../src/cli/keystore.js";

const key = new Uint8Array(32).map((_, i) => i + 1);
const password = "correct horse, Ünïcode";
const light = { cost: "light" as const, now: new Date(0) };

let folder: string;
beforeEach(() => { folder = mkdtempSync(join(tmpdir(), "tesra-keys-")); });
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe("Web3 Secret Storage", () => {
  it("is opened by ethers", async () => {
    const wallet = await Wallet.fromEncryptedJson(await encryptKey(key, password, light), password);
    expect(wallet.privateKey).toBe(`0x${Buffer.from(key).toString("hex")}`);
    expect(wallet.address).toBe(getAddress(addressOf(key)));
  });

  it("opens what ethers writes", async () => {
    const address = getAddress(addressOf(key));
    const text = await encryptKeystoreJson(
      { address, privateKey: `0x${Buffer.from(key).toString("hex")}` }, password,
      { scrypt: { N: 1_024, r: 8, p: 1 } });
    expect(Buffer.from(await decryptKey(text, password, "f"))).toEqual(Buffer.from(key));
  });

  // The two vectors of the format's definition (Ethereum wiki, "Web3 Secret Storage Definition").
  const secret = "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d";
  const vectors = {
    pbkdf2: {
      cipherparams: { iv: "6087dab2f9fdbbfaddc31a909735c1e6" },
      ciphertext: "5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46",
      kdfparams: {
        c: 262144, dklen: 32, prf: "hmac-sha256",
        salt: "ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd",
      },
      mac: "517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2",
    },
    scrypt: {
      cipherparams: { iv: "83dbcc02d8ccb40e466191a123791e0e" },
      ciphertext: "d172bf743a674da9cdad04534d56926ef8358534d458fffccd4e6ad2fbde479c",
      kdfparams: {
        dklen: 32, n: 262144, r: 1, p: 8,
        salt: "ab0c7876052600dd703518d6fc3fe8984592145b591fc8fb5c6d43190334ba19",
      },
      mac: "2103ac29920d71da29f15d75b4a16dbe95cfd7ff8faea1056c33131d846e3097",
    },
  };
  it.each(["pbkdf2", "scrypt"] as const)("opens the definition's %s vector", async (kdf) => {
    const crypto = { cipher: "aes-128-ctr", kdf, ...vectors[kdf] };
    const id = "3198bc9c-6672-5ab3-d995-4942343ae5b6";
    const opened = await decryptKey(
      JSON.stringify({ crypto, id, version: 3 }), "testpassword", "vector");
    expect(Buffer.from(opened).toString("hex")).toBe(secret);
  });

  it("refuses a wrong password and any change of the ciphertext, iv, salt or address", async () => {
    const text = await encryptKey(key, password, light);
    await expect(decryptKey(text, "wrong", "f")).rejects.toThrow(/password does not open f/);
    const flip = (hex: string) => (hex[0] === "0" ? "1" : "0") + hex.slice(1);
    const changes: ((file: any) => void)[] = [
      (file) => { file.crypto.ciphertext = flip(file.crypto.ciphertext); },
      (file) => { file.crypto.mac = flip(file.crypto.mac); },
      (file) => { file.crypto.kdfparams.salt = flip(file.crypto.kdfparams.salt); },
      (file) => { file.crypto.cipherparams.iv = flip(file.crypto.cipherparams.iv); }, // not in the mac
      (file) => { file.address = flip(file.address); },
    ];
    for (const change of changes) {
      const file = JSON.parse(text);
      change(file);
      await expect(decryptKey(JSON.stringify(file), password, "f")).rejects.toThrow();
    }
  });

  it("refuses files that are none, or that ask for too much, in one sentence", async () => {
    const file = JSON.parse(await encryptKey(key, password, light));
    const params = (change: object) => JSON.stringify({
      ...file, crypto: { ...file.crypto, kdfparams: { ...file.crypto.kdfparams, ...change } },
    });
    await expect(decryptKey("not json", password, "f")).rejects.toThrow(/f is no key file: expected JSON/);
    await expect(decryptKey("{}", password, "f")).rejects.toThrow(/key "version"/);
    await expect(decryptKey("null", password, "f")).rejects.toThrow(/no key file/);
    await expect(decryptKey(params({ n: 2 ** 24 }), password, "f")).rejects.toThrow(/at most 1024 MiB/);
    await expect(decryptKey(params({ n: 1000 }), password, "f")).rejects.toThrow(/power of 2/);
    await expect(decryptKey(params({ p: 1e6 }), password, "f")).rejects.toThrow(/p at most/);
    await expect(decryptKey(params({ dklen: 16 }), password, "f")).rejects.toThrow(/dklen/);
  });
});

describe("the keystore", () => {
  it("saves with modes 0600 and 0700, lists and finds", async () => {
    const inner = join(folder, "new", "keystore");
    const account = await saveKey(inner, key, password, { ...light, name: "me" });
    expect(statSync(account.file).mode & 0o777).toBe(0o600);
    expect(statSync(inner).mode & 0o777).toBe(0o700);
    expect(readdirSync(inner)).toEqual([`UTC--1970-01-01T00-00-00.000Z--${addressOf(key).slice(2)}`]);
    expect(await listAccounts(inner)).toEqual([account]);
    for (const wanted of ["me", account.address, getAddress(account.address), undefined]) {
      expect(await findAccount(inner, wanted)).toEqual(account);
    }
    await expect(findAccount(inner, "you")).rejects.toThrow(/no account "you" in .*; it has me/);
    const opened = await decryptKey(readFileSync(account.file, "utf8"), password, account.file);
    expect(addressOf(opened)).toBe(account.address);
  });

  it("never replaces a key, a name or an address", async () => {
    await saveKey(folder, key, password, { ...light, name: "me" });
    await expect(saveKey(folder, key, password, light)).rejects.toThrow(/already in/);
    const other = new Uint8Array(32).fill(9);
    await expect(saveKey(folder, other, password, { ...light, name: "me" })).rejects.toThrow(/name "me" is taken/);
    expect(readdirSync(folder)).toHaveLength(1);
    await saveKey(folder, other, password, light);
    await expect(findAccount(folder, undefined)).rejects.toThrow(/has 2 accounts: name one/);
  });

  it("says which file is broken", async () => {
    writeFileSync(join(folder, "broken"), "{");
    await expect(listAccounts(folder)).rejects.toThrow(/broken is no key file/);
    expect(await listAccounts(join(folder, "none"))).toEqual([]);
    await expect(findAccount(join(folder, "none"), "x")).rejects.toThrow(/wallet create/);
  });
});
