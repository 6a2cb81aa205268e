// Owns the certificates that wait for a block. Invariant: everything in it was verified against the head it
// arrived at; it is bounded, and what left the window or stands in a block is dropped at each new head.
import type { AcceptedCertificate, CertificateChecker } from "../consensus/certificates.js";
import type { Header } from "../block/header.js";
import { ChainError, messageOf } from "../errors.js";

/** A window of 8 blocks of 10, three times over: more could never be included in time. */
const CERTIFICATES_POOLED_MAX = 256;
/** One miner cannot fill the pool of a node. */
const CERTIFICATES_PER_MINER_MAX = 64;

export class CertificatePool {
  private readonly byNullifier = new Map<string, AcceptedCertificate>();

  constructor(private readonly checker: CertificateChecker) {}

  get size(): number {
    return this.byNullifier.size;
  }

  /** Throws ChainError "certificate". */
  add(encoded: Uint8Array, head: Header): AcceptedCertificate {
    const { nullifier, certificate } = this.checker.read(encoded);
    if (this.byNullifier.has(nullifier)) throw new ChainError("certificate-known", "this certificate is already in the pool");
    const minerKey = Buffer.from(certificate.publicKey).toString("hex");
    let ofMiner = 0;
    for (const each of this.byNullifier.values()) {
      if (Buffer.from(each.certificate.publicKey).toString("hex") === minerKey) ofMiner += 1;
    }
    if (this.byNullifier.size >= CERTIFICATES_POOLED_MAX || ofMiner >= CERTIFICATES_PER_MINER_MAX) {
      throw new ChainError("certificate-pool-full", `the pool is full (${this.byNullifier.size}, ${ofMiner} of this miner)`);
    }
    const accepted = this.checker.check(encoded, head);
    this.byNullifier.set(nullifier, accepted);
    return accepted;
  }

  /** The most work first, at most `max`, for a block on `parent`. */
  select(parent: Header, max: number): AcceptedCertificate[] {
    const used = this.checker.usedNullifiers(parent);
    const candidates = [...this.byNullifier.values()]
      .sort((a, b) => (a.multiplyAdds === b.multiplyAdds ? a.certificate.height - b.certificate.height
        : a.multiplyAdds > b.multiplyAdds ? -1 : 1));
    const selected: AcceptedCertificate[] = [];
    for (const candidate of candidates) {
      if (selected.length === max) break;
      try {
        const accepted = this.checker.check(candidate.encoded, parent, used);
        used.add(accepted.nullifier);
        selected.push(accepted);
      } catch {
        // not valid on this parent; `prune` decides whether it may become so again
      }
    }
    return selected;
  }

  /** Drops what can no longer stand in the block after `head`. */
  prune(head: Header): void {
    const used = this.checker.usedNullifiers(head);
    for (const [nullifier, { encoded }] of this.byNullifier) {
      try {
        this.checker.check(encoded, head, used);
      } catch (error) {
        if (!messageOf(error).includes("not an ancestor")) this.byNullifier.delete(nullifier);
        else if (this.byNullifier.size > CERTIFICATES_POOLED_MAX / 2) this.byNullifier.delete(nullifier);
      }
    }
  }
}
