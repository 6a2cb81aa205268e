import { beforeEach, describe, expect, it } from "vitest";
import { SUPPLY, SYSTEM_ADDRESS, systemAddresses, TSR } from "../../../src/chain/contracts/system.js";
import { blsKey, blsProof, HOLDING, people, TestChain, transportKey } from "./harness.js";

let chain: TestChain;
beforeEach(async () => {
  chain = await TestChain.create();
});
const reason = `0x${"65".padEnd(64, "0")}` as const;
const reserve = () => chain.balance(systemAddresses.miningReserve);
const supplyHolds = async () => expect(await chain.totalBalance()).toBe(SUPPLY);

describe("StakeRegistry", () => {
  const stake = (amount: bigint, who = people.validator2, key = 50) =>
    chain.send(who, "stake", "stake", [blsKey(key), blsProof], amount);
  const active = async () => (await chain.view("stake", "activeStakers", []))
    .map((each) => [each.owner.toLowerCase(), each.amount]);
  const balanced = async () => {
    const [bonded, unbonding] = [await chain.view("stake", "totalBonded", []), await chain.view("stake", "totalUnbonding", [])];
    expect(await chain.balance(systemAddresses.stakeRegistry)).toBe(bonded + unbonding);
    await supplyHolds();
  };

  it("counts genesis stakes at once and later ones after maturity; a top-up starts anew", async () => {
    const genesis = [people.validator, 5_000n * TSR];
    expect(await active()).toEqual([genesis]);
    expect((await stake(2_000n * TSR)).ok).toBe(true);
    expect(await active()).toEqual([genesis]);
    chain.time += 7_200n;
    expect(await active()).toEqual([genesis, [people.validator2, 2_000n * TSR]]);
    await chain.must(people.validator2, "stake", "topUp", [], 500n * TSR);
    expect(await chain.view("stake", "activeStakeOf", [people.validator2])).toBe(2_000n * TSR);
    chain.time += 7_200n;
    expect(await chain.view("stake", "activeStakeOf", [people.validator2])).toBe(2_500n * TSR);
    await balanced();
  });

  it("holds leaving coins for the unbonding time, in which they do not weigh but can be slashed", async () => {
    await chain.must(people.validator, "stake", "unbond", [1_000n * TSR]);
    expect(await chain.view("stake", "activeStakeOf", [people.validator])).toBe(4_000n * TSR);
    expect((await chain.send(people.validator, "stake", "withdraw", [])).error).toBe("NothingToWithdraw");
    await chain.must(people.validator, "stake", "unbond", [4_000n * TSR]);
    expect(await active()).toEqual([]);
    const before = await reserve();
    chain.time += 604_799n;
    expect((await chain.send(people.validator, "stake", "withdraw", [])).error).toBe("NothingToWithdraw");
    await chain.must(SYSTEM_ADDRESS, "stake", "slash", [people.validator, 4_500n * TSR, reason]);
    expect((await reserve()) - before).toBe(4_500n * TSR);
    chain.time += 1n;
    await chain.must(people.validator, "stake", "withdraw", []);
    expect((await chain.balance(people.validator)) - HOLDING).toBe(500n * TSR);
    await balanced();
  });

  it("bars a validator that lost everything, and binds a key to one owner for good", async () => {
    await chain.must(SYSTEM_ADDRESS, "stake", "slash", [people.validator, 2n ** 255n, reason]);
    expect(await active()).toEqual([]);
    expect((await stake(5_000n * TSR, people.validator, 1)).error).toBe("Barred");
    expect((await stake(5_000n * TSR, people.validator2, 1)).error).toBe("KeyTaken");
    expect((await chain.send(people.validator2, "stake", "slash", [people.validator, 1n, reason])).error).toBe("OnlySystem");
    await balanced();
  });

  it("refuses crumbs, bad keys, a second stake, dust left behind and endless unbondings", async () => {
    expect((await stake(999n * TSR)).error).toBe("BelowMinimum");
    expect((await chain.send(people.validator2, "stake", "stake", ["0x01", blsProof], 2_000n * TSR)).error).toBe("BadBlsKey");
    expect((await stake(5_000n * TSR, people.validator, 1)).error).toBe("AlreadyStaking");
    expect((await chain.send(people.validator, "stake", "unbond", [4_001n * TSR])).error).toBe("BelowMinimum");
    expect((await chain.send(people.validator, "stake", "unbond", [5_001n * TSR])).error).toBe("InsufficientStake");
    for (let index = 0; index < 16; index += 1) await chain.must(people.validator, "stake", "unbond", [1n]);
    expect((await chain.send(people.validator, "stake", "unbond", [1n])).error).toBe("TooManyUnbondings");
    chain.time += 604_800n;
    await chain.must(people.validator, "stake", "withdraw", []);
    expect((await chain.balance(people.validator)) - HOLDING).toBe(16n);
    await balanced();
  });
});

describe("MasterRegistry", () => {
  const register = (who = people.master2, amount = 10_000n * TSR, index = 60) =>
    chain.send(who, "master", "register", [blsKey(index), blsProof, transportKey(index)], amount);

  it("pays the live master unpaid for longest, and a newcomer last", async () => {
    chain.number = 10n;
    expect((await register()).ok).toBe(true);
    chain.number = 11n;
    expect((await register(people.master3, 10_000n * TSR, 61)).ok).toBe(true);
    const turns: string[] = [];
    for (let turn = 0; turn < 5; turn += 1) {
      chain.number += 1n;
      const payee = await chain.view("master", "nextPayee", []);
      turns.push(payee.toLowerCase());
      await chain.must(SYSTEM_ADDRESS, "master", "recordPayment", [payee, 1n]);
    }
    expect(turns).toEqual([people.master, people.master2, people.master3, people.master, people.master2]);
    chain.time += 3_601n;
    await chain.must(people.master, "master", "heartbeat", []);
    expect((await chain.view("master", "nextPayee", [])).toLowerCase()).toBe(people.master); // the others are silent
    expect((await chain.send(people.master, "master", "recordPayment", [people.master, 1n])).error).toBe("OnlySystem");
  });

  it("expels the silent at a price that grows, and takes all for conflicting locks", async () => {
    await register();
    await register(people.master3, 10_000n * TSR, 61);
    const before = await reserve();
    chain.time += 7_200n;
    expect((await chain.send(people.stranger, "master", "expelSilent", [people.master2])).error).toBe("StillAlive");
    chain.time += 10n * 3_600n; // twelve windows
    await chain.must(people.stranger, "master", "expelSilent", [people.master2]);
    expect((await reserve()) - before).toBe(1_200n * TSR);
    await chain.must(SYSTEM_ADDRESS, "master", "expel", [people.master3, 10_000, reason]);
    expect((await reserve()) - before).toBe(11_200n * TSR);
    expect((await chain.send(people.master2, "master", "withdraw", [])).error).toBe("StillLeaving");
    chain.time += 604_800n;
    await chain.must(people.master2, "master", "withdraw", []);
    expect((await chain.balance(people.master2)) - HOLDING).toBe(-1_200n * TSR);
    expect((await chain.send(people.master3, "master", "withdraw", [])).error).toBe("NothingToWithdraw");
    expect((await chain.view("master", "masters", [])).map((each) => each.owner.toLowerCase())).toEqual([people.master]);
    await supplyHolds();
  });

  it("reaches the pledge of one that resigned in time to escape", async () => {
    await register();
    await chain.must(people.master2, "master", "resign", []);
    expect(await chain.view("master", "isActive", [people.master2])).toBe(false);
    await chain.must(SYSTEM_ADDRESS, "master", "expel", [people.master2, 10_000, reason]);
    chain.time += 604_800n;
    expect((await chain.send(people.master2, "master", "withdraw", [])).error).toBe("NothingToWithdraw");
    await supplyHolds();
  });

  it("refuses a small pledge, a taken key and strangers", async () => {
    expect((await register(people.master2, 9_999n * TSR)).error).toBe("BelowPledge");
    expect((await register(people.master2, 10_000n * TSR, 2)).error).toBe("KeyTaken");
    expect((await register(people.master)).error).toBe("AlreadyListed");
    expect((await chain.send(people.stranger, "master", "heartbeat", [])).error).toBe("NotListed");
  });
});

describe("PriceFeed", () => {
  it("is the median of more than half of the live masters", async () => {
    for (const [index, who] of [people.master2, people.master3].entries()) {
      await chain.must(who, "master", "register", [blsKey(60 + index), blsProof, transportKey(60 + index)], 10_000n * TSR);
    }
    const submit = (who: typeof people.master, price: bigint) => chain.must(who, "price", "submit", [price]);
    const price = () => chain.view("price", "price", []);
    await submit(people.master, 1n);
    expect(await price()).toBe(20_000n); // one of three moves nothing
    await submit(people.master2, 30_000n);
    expect(await price()).toBe(15_000n);
    await submit(people.master3, 32_000n);
    expect(await price()).toBe(30_000n); // the liar is outside the median
    chain.time += 86_401n;
    for (const who of [people.master, people.master2, people.master3]) await chain.must(who, "master", "heartbeat", []);
    await submit(people.master, 1n);
    expect(await price()).toBe(30_000n); // the others' are stale: no majority
    expect((await chain.send(people.stranger, "price", "submit", [1n])).error).toBe("OnlyMaster");
    for (const bad of [0n, 10n ** 15n + 1n]) {
      expect((await chain.send(people.master, "price", "submit", [bad])).error).toBe("PriceOutOfRange");
    }
  });
});

describe("ComputeRegistry", () => {
  it("keeps the comment within [5000, 12000] and lets time bring it back", async () => {
    const a = people.worker(0);
    const comment = () => chain.view("compute", "commentOf", [a]);
    const record = (what: "recordFinished" | "recordAborted" | "recordLate") =>
      chain.must(systemAddresses.taskMarket, "compute", what, [a]);
    for (let index = 0; index < 12; index += 1) await record("recordFinished");
    expect(await comment()).toBe(12_000);
    chain.time += 5n * 86_400n;
    expect(await comment()).toBe(11_500);
    await record("recordAborted");
    expect(await comment()).toBe(9_500);
    await record("recordLate");
    expect(await comment()).toBe(6_500);
    for (let index = 0; index < 5; index += 1) await record("recordLate");
    expect(await comment()).toBe(5_000);
    chain.time += 10n * 86_400n;
    expect(await comment()).toBe(10_500);
    chain.time += 100n * 86_400n;
    expect(await comment()).toBe(10_000);
  });

  it("lists nodes by page and lets a node change its transport key", async () => {
    expect((await chain.view("compute", "nodes", [4n, 10n])).map((each) => each.owner.toLowerCase()))
      .toEqual([people.worker(4), people.worker(5)]);
    expect(await chain.view("compute", "nodes", [9n, 10n])).toEqual([]);
    await chain.must(people.worker(0), "compute", "register", [transportKey(800)]);
    await chain.must(people.worker(1), "compute", "register", [transportKey(100)]); // the old one is free again
    expect(await chain.view("compute", "nodeCount", [])).toBe(6n);
    expect(await chain.view("compute", "peakPowerOf", [people.worker(0)])).toBe(10n ** 12n);
  });
});

describe("Distribution", () => {
  const [foundation, team, community, ecology] = [0, 1, 2, 3];
  const day = 86_400n;
  const releasable = (tranche: number) => chain.view("distribution", "releasable", [tranche]);
  const total = async (tranche: number) => (await chain.view("distribution", "accountOf", [tranche])).total;

  it("locks foundation and team for 24 months, then frees them linearly until the eighth year", async () => {
    expect(await total(foundation)).toBe(1_400_000_000n * TSR);
    chain.time += 730n * day;
    expect([await releasable(foundation), await releasable(team)]).toEqual([0n, 0n]);
    chain.time += 1_095n * day; // half of the six years
    expect(await releasable(team)).toBe(500_000_000n * TSR);
    const release = (who: typeof people.team, amount: bigint) =>
      chain.send(who, "distribution", "release", [team, [people.stranger], [amount]]);
    expect((await release(people.stranger, 1n)).error).toBe("OnlyBeneficiary");
    expect((await release(people.team, 500_000_000n * TSR + 1n)).error).toBe("NotReleasable");
    expect((await release(people.team, 500_000_000n * TSR)).ok).toBe(true);
    expect(await releasable(team)).toBe(0n);
    chain.time += 10_000n * day;
    expect((await release(people.team, 500_000_000n * TSR)).ok).toBe(true);
    expect(await releasable(team)).toBe(0n);
    await supplyHolds();
  });

  it("splits the unsold community part 70 to mining and 30 to the ecology fund", async () => {
    const unsold = await total(community);
    const before = await reserve();
    await chain.must(people.community, "distribution", "closeCommunity", []);
    expect((await reserve()) - before).toBe((unsold * 70n) / 100n);
    expect(await releasable(ecology)).toBe(unsold - (unsold * 70n) / 100n);
    expect(await releasable(community)).toBe(0n);
    await chain.must(people.community, "distribution", "closeCommunity", []); // nothing more to close
    expect(await releasable(ecology)).toBe(unsold - (unsold * 70n) / 100n);
    await supplyHolds();
  });

  it("always holds what its books say", async () => {
    await chain.raw(people.stranger, systemAddresses.distribution, "0x", 5n * TSR);
    await chain.must(people.ecology, "distribution", "release", [ecology, [people.client], [2n * TSR]]);
    await chain.must(people.community, "distribution", "closeCommunity", []);
    let books = 0n;
    for (const tranche of [foundation, team, community, ecology]) {
      const account = await chain.view("distribution", "accountOf", [tranche]);
      books += account.total - account.released;
    }
    expect(await chain.balance(systemAddresses.distribution)).toBe(books);
  });
});
