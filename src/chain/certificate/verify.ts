/**
 * Owns the verdict on a challenge certificate.
 * Invariant: checks run cheapest first, each bounded, and the verdict does not depend on whether
 * a device or the plain reference did the arithmetic.
 */
import {
  fieldFault, signingDigest, type Certificate,
} from "./certificate.js";
import { challengeKeys, challengePell } from "./challenge.js";
import { expectedMultiplyAdds, ticketBound } from "./difficulty.js";
import { challengeRows, MATRIX_A, MATRIX_B_TRANSPOSED } from "./matrices.js";
import type { CertificateDevice } from "./miner.js";
import { isSignatureBy } from "./secp256k1.js";
import {
  dimsFault, ticketOf, ticketWins, tileCells, tileCount, tileTranscript, type ProductDims,
} from "./tile.js";

/** What the chain asks of a certificate. */
export interface CertificateRules {
  readonly chainId: bigint;
  readonly dims: ProductDims;
  /** T: see difficulty.ts. */
  readonly target: bigint;
}

export type CertificateVerdict =
  | { readonly ok: true; readonly ticket: Uint8Array; readonly multiplyAdds: bigint }
  | { readonly ok: false; readonly reason: string };

/**
 * The cheap part: form, chain, shape, tile and signature (about 0.1 ms). A node runs it, and looks
 * the nullifier and the tip up, before it spends anything on the arithmetic.
 */
export function checkCertificateClaim(
  certificate: Certificate, rules: CertificateRules,
): string | undefined {
  const fault = fieldFault(certificate);
  if (fault) return fault;
  const { chainId, m, n, k, tile } = certificate;
  if (chainId !== rules.chainId) return `chainId is ${chainId}, this chain is ${rules.chainId}`;
  if (m !== rules.dims.m || n !== rules.dims.n || k !== rules.dims.k) {
    const want = rules.dims;
    return `shape is ${m} x ${n} x ${k}, the rule is ${want.m} x ${want.n} x ${want.k}`;
  }
  const shape = dimsFault(rules.dims);
  if (shape) return shape;
  if (tile >= tileCount(rules.dims)) {
    return `tile ${tile} is outside 0..${tileCount(rules.dims) - 1}`;
  }
  if (!isSignatureBy(certificate.publicKey, signingDigest(certificate), certificate.signature)) {
    return "the signature is not by publicKey over these fields";
  }
  return undefined;
}

/**
 * The whole verdict. Without a device the plain TypeScript reference computes the tile.
 * multiplyAdds is the expected work of a win at this target: what the reward is shared by.
 * The caller checks what needs the chain: tip is an ancestor at `height`, age, nullifier.
 */
export function verifyCertificate(
  certificate: Certificate, rules: CertificateRules,
  device?: Pick<CertificateDevice, "crmTile" | "blake3">,
): CertificateVerdict {
  const reason = checkCertificateClaim(certificate, rules);
  if (reason !== undefined) return { ok: false, reason };
  const ticket = certificateTicket(certificate, device);
  if (!ticketWins(ticket, ticketBound(rules.target, certificate.k))) {
    return { ok: false, reason: "the ticket is above the target" };
  }
  return { ok: true, ticket, multiplyAdds: expectedMultiplyAdds(rules.target, certificate.k) };
}

/** The ticket of the certificate's tile: 24 rows made anew and 128 * k multiply-adds. */
export function certificateTicket(
  certificate: Omit<Certificate, "signature">,
  device?: Pick<CertificateDevice, "crmTile" | "blake3">,
): Uint8Array {
  const { k, tip, nonce, tile } = certificate;
  const { seed, ticketKey } = challengeKeys(certificate, challengePell(tip, nonce));
  const { rows, columns } = tileCells(tile, certificate);
  const aRows = challengeRows(seed, MATRIX_A, rows, k);
  const bColumns = challengeRows(seed, MATRIX_B_TRANSPOSED, columns, k);
  return device
    ? device.blake3(device.crmTile(aRows, bColumns, k), ticketKey)
    : ticketOf(tileTranscript(aRows, bColumns, k), ticketKey);
}
