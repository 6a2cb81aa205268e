/**
 * Opens the CPU device for tests, or tells that the native kernels are not built here.
 */
import type { CertificateDevice } from "../../../src/chain/certificate/miner.js";

export async function openTestDevice(): Promise<(CertificateDevice & { close(): void }) | undefined> {
  try {
    const { openDevice } = await import("../../../src/device/device.js");
    return openDevice({ backend: "cpu" });
  } catch {
    return undefined;
  }
}
