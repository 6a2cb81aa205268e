// Checks the JSON object of `supernet demo --json` on stdin: the money exactly, the accuracy and the time against
// limits. With STRICT=1 (a quiet machine) the limits are those of the project's own goal, else those of a busy one.
// Run: npm run --silent demo -- --json | node test/setup/check-demo.mjs
import { readFileSync } from "node:fs";

const GOAL = { accuracy: 0.88, seconds: 90 };
const BUSY = { accuracy: 0.85, seconds: 300 };
const isStrict = process.env.STRICT === "1";
const limits = isStrict ? GOAL : BUSY;

const lines = readFileSync(0, "utf8").trim().split("\n");
const demo = JSON.parse(lines.at(-1));
const faults = [];
if (lines.length !== 1) faults.push(`stdout holds ${lines.length} lines, expected the JSON object alone`);
if (!(demo.accuracy >= limits.accuracy)) faults.push(`accuracy ${demo.accuracy} is below ${limits.accuracy}`);
if (!(demo.seconds <= limits.seconds)) faults.push(`${demo.seconds} s is above ${limits.seconds} s`);
if (demo.ledger.conserved !== true || BigInt(demo.ledger.total) !== 10n ** 28n) faults.push("the ledger does not sum to the supply");
if (demo.task.outcome !== "settled") faults.push(`the task ended as ${demo.task.outcome}`);
const { collateral, fee, refunded, paid } = demo.task;
const out = Object.values(paid).reduce((sum, each) => sum + BigInt(each), BigInt(fee) + BigInt(refunded));
if (out !== BigInt(collateral)) faults.push(`payments, fee and refund are ${out}, the escrow was ${collateral}`);
if (!Object.values(paid).some((each) => BigInt(each) > 0n)) faults.push("no worker was paid");

const goal = `goal ${GOAL.accuracy} within ${GOAL.seconds} s: ${demo.accuracy >= GOAL.accuracy && demo.seconds <= GOAL.seconds ? "met" : "not met"}`;
console.log(`demo: accuracy ${demo.accuracy} in ${demo.seconds} s, ${Math.round(demo.samplesPerSecond)} images/s, ${demo.backend}; ${goal}${isStrict ? "" : " (asserted with STRICT=1)"}`);
for (const fault of faults) console.log(`demo: ${fault}`);
process.exit(faults.length === 0 ? 0 : 1);
