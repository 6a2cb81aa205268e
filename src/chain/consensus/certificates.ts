// Owns which certificates a block may hold: the block they name is an ancestor inside the window, each win counts
// once, and the ticket meets the target of the block they name. Invariant: checks run from cheap to dear.
import { equals, keyOf } from "../bytes.js";
import { messageOf, reject } from "../errors.js";
import type { BlockIndex } from "../block/block-index.js";
import type { Header } from "../block/header.js";
import {
  certificateMiner, certificateNullifier, decodeCertificate, type Certificate,
} from "../certificate/certificate.js";
import { verifyCertificate, type CertificateRules, type CertificateVerdict } from "../certificate/verify.js";
import type { CertificateDevice } from "../certificate/miner.js";
import type { Genesis } from "../genesis.js";

/** Says whether the work in a certificate is real; tests may give another one. */
export type CertificateVerifier = (certificate: Certificate, rules: CertificateRules) => CertificateVerdict;

export interface AcceptedCertificate {
  certificate: Certificate;
  encoded: Uint8Array;
  nullifier: string;
  miner: Uint8Array;
  /** The target that it met: what its weight is measured by. */
  target: bigint;
  multiplyAdds: bigint;
}

/** Verdicts kept so that a certificate of the pool is not computed again when its block arrives. */
const VERDICTS_MAX = 1_024;
/** Blocks whose nullifiers are kept decoded: twice the largest window. */
const NULLIFIER_BLOCKS_MAX = 128;

export class CertificateChecker {
  private readonly verdicts = new Map<string, CertificateVerdict>();
  private readonly nullifiers = new Map<string, string[]>();

  constructor(private readonly genesis: Genesis,
    private readonly modules: { index: BlockIndex; verify: CertificateVerifier }) {}

  /** All certificates of a block on `parent`, in order. Throws ChainError "certificate" at the first that may not stand. */
  checkBlock(encoded: readonly Uint8Array[], parent: Header): AcceptedCertificate[] {
    const { perBlockMax } = this.genesis.certificates;
    if (encoded.length > perBlockMax) {
      reject("certificate", `the block holds ${encoded.length} certificates, at most ${perBlockMax} are allowed`);
    }
    if (encoded.length === 0) return [];
    const used = this.usedNullifiers(parent);
    return encoded.map((bytes) => {
      const accepted = this.check(bytes, parent, used);
      used.add(accepted.nullifier);
      return accepted;
    });
  }

  /** One certificate as a candidate for the block after `parent`. Throws ChainError "certificate". */
  check(encoded: Uint8Array, parent: Header, used: Set<string> = this.usedNullifiers(parent)): AcceptedCertificate {
    const { certificate, nullifier } = this.read(encoded);
    const { windowBlocks, m, n, k } = this.genesis.certificates;
    const height = parent.number + 1;
    if (certificate.height >= height || certificate.height < height - windowBlocks) {
      reject("certificate", `height ${certificate.height} is outside ${height - windowBlocks} to ${height - 1}`);
    }
    const tip = this.modules.index.ancestor(parent, certificate.height);
    if (!equals(tip.hash, certificate.tip)) reject("certificate", "its tip is not an ancestor of this block");
    if (used.has(nullifier)) reject("certificate", "this win was rewarded before (nullifier)");
    const verdict = this.verdict(encoded, certificate, {
      chainId: BigInt(this.genesis.chainId), dims: { m, n, k }, target: tip.powTarget,
    });
    if (!verdict.ok) return reject("certificate", verdict.reason);
    return {
      certificate, encoded, nullifier, miner: certificateMiner(certificate), target: tip.powTarget,
      multiplyAdds: verdict.multiplyAdds,
    };
  }

  /** Nullifiers spent in the blocks that a certificate valid after `parent` could also have stood in. */
  usedNullifiers(parent: Header): Set<string> {
    const used = new Set<string>();
    const oldest = Math.max(1, parent.number + 1 - this.genesis.certificates.windowBlocks);
    for (let header = parent; header.number >= oldest;) {
      for (const nullifier of this.nullifiersOf(header)) used.add(nullifier);
      const next = this.modules.index.header(header.parentHash);
      if (!next) break;
      header = next;
    }
    return used;
  }

  read(encoded: Uint8Array): { certificate: Certificate; nullifier: string } {
    try {
      const certificate = decodeCertificate(encoded);
      return { certificate, nullifier: keyOf(certificateNullifier(certificate)) };
    } catch (error) {
      return reject("certificate", messageOf(error));
    }
  }

  private nullifiersOf(header: Header): string[] {
    const key = keyOf(header.hash);
    let found = this.nullifiers.get(key);
    if (!found) {
      found = (this.modules.index.block(header.hash)?.certificates ?? []).map((each) => this.read(each).nullifier);
      if (this.nullifiers.size >= NULLIFIER_BLOCKS_MAX) this.nullifiers.delete(this.nullifiers.keys().next().value!);
      this.nullifiers.set(key, found);
    }
    return found;
  }

  private verdict(encoded: Uint8Array, certificate: Certificate, rules: CertificateRules): CertificateVerdict {
    const key = `${keyOf(encoded)}:${rules.target}`; // the same bytes may be asked under another branch's target
    let verdict = this.verdicts.get(key);
    if (!verdict) {
      verdict = this.modules.verify(certificate, rules);
      if (this.verdicts.size >= VERDICTS_MAX) this.verdicts.delete(this.verdicts.keys().next().value!);
      this.verdicts.set(key, verdict);
    }
    return verdict;
  }
}

export function createCertificateVerifier(device?: Pick<CertificateDevice, "crmTile" | "blake3">): CertificateVerifier {
  return (certificate, rules) => verifyCertificate(certificate, rules, device);
}
