// Owns the side of @noble/hashes: BLAKE3 in JavaScript, the strongest that a browser or plain Node has.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { blake3 } from "@noble/hashes/blake3.js";

const now = () => performance.now() / 1000;
const { dependencies } = JSON.parse(readFileSync(new URL("../../../package.json", import.meta.url), "utf8"));
console.log(JSON.stringify({ version: dependencies["@noble/hashes"] }));
for await (const line of createInterface({ input: process.stdin })) {
  const { op, size, threads, seconds } = JSON.parse(line);
  if (op !== "blake3" || threads > 1) {
    console.log(JSON.stringify({ reason: threads > 1 ? "one thread only" : "no such operation here" }));
    continue;
  }
  const data = new Uint8Array(size).fill(7), times = [], begin = now();
  do {
    const start = now();
    blake3(data);
    times.push(now() - start);
  } while (now() - begin < seconds);
  console.log(JSON.stringify({ seconds: times.sort((a, b) => a - b)[times.length >> 1] }));
}
