/**
 * Owns how amounts of TSR are printed for people. Data formats carry the smallest unit as decimal strings.
 */
import { formatEther } from "viem";

/** Digits after the point that a table shows; the exact amount is in the JSON. */
const SHOWN_DIGITS = 6;

export function formatTsr(amount: bigint): string {
  const text = formatEther(amount);
  const point = text.indexOf(".");
  return point < 0 ? text : text.slice(0, point + 1 + SHOWN_DIGITS).replace(/\.?0+$/, "");
}
