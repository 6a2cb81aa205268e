// Owns the EVM rule set. Invariant: Cancun, except that no rule may destroy coins (the supply is constant):
// SELFDESTRUCT keeps the balance (EIP-8246, part of a later fork and switched on here), and blob transactions,
// whose fee is burnt, are not valid on this chain.
import { Common, Hardfork, Mainnet, type CustomCrypto } from "@ethereumjs/common";
import { nativeCrypto } from "../crypto/signature.js";

const SELFDESTRUCT_KEEPS_BALANCE_EIP = 8246;

class ChainRules extends Common {
  override isActivatedEIP(eip: number): boolean {
    return eip === SELFDESTRUCT_KEEPS_BALANCE_EIP || super.isActivatedEIP(eip);
  }
}

export function createRules(chainId: number): Common {
  return new ChainRules({
    chain: { ...Mainnet, chainId, name: "tesra" }, hardfork: Hardfork.Cancun,
    customCrypto: nativeCrypto as CustomCrypto,
  });
}

/** Legacy (EIP-155), access list (EIP-2930) and fee market (EIP-1559) transactions. */
export const TRANSACTION_TYPES: readonly number[] = [0, 1, 2];
