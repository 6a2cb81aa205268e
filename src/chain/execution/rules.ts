// Owns the EVM rule set. Invariant: Cancun, except that no rule may destroy coins (the supply is constant):
// SELFDESTRUCT keeps the balance (EIP-8246, part of a later fork and switched on here), and blob transactions,
// whose fee is burnt, are not valid on this chain.
import { Common, Hardfork, Mainnet, type CustomCrypto } from "@ethereumjs/common";
import { nativeCrypto } from "../crypto/signature.js";

const SELFDESTRUCT_KEEPS_BALANCE_EIP = 8246;

/**
 * One rule set for every transaction, block and machine. The libraries copy it and merge their parameter tables into
 * the copy for each transaction, a quarter of the time of decoding one; with one fork there is nothing to keep apart.
 */
class ChainRules extends Common {
  declare private merged: Set<object> | undefined;

  override copy(): Common {
    return this;
  }

  override updateParams(params: Parameters<Common["updateParams"]>[0]): void {
    this.merged ??= new Set();
    if (this.merged.has(params)) return;
    this.merged.add(params);
    super.updateParams(params);
  }

  override isActivatedEIP(eip: number): boolean {
    return eip === SELFDESTRUCT_KEEPS_BALANCE_EIP || super.isActivatedEIP(eip);
  }
}

export function createRules(chainId: number): Common {
  const rules = new ChainRules({
    chain: { ...Mainnet, chainId, name: "tesra" }, hardfork: Hardfork.Cancun,
    customCrypto: nativeCrypto as CustomCrypto,
  });
  // Every EVM subscribes to a change of the fork, which never comes here: kept, the subscription would keep the
  // machine of every past read and block in memory (5 MB a block, measured).
  rules.events.on = () => rules.events;
  return rules;
}

/** Legacy (EIP-155), access list (EIP-2930) and fee market (EIP-1559) transactions. */
export const TRANSACTION_TYPES: readonly number[] = [0, 1, 2];
