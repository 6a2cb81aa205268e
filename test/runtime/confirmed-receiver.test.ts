// What a confirmed cast's receiver makes of runs of which a lost link took a part.
import { afterEach, describe, expect, it } from "vitest";
import { z } from "zod";
import { behavior, createSystem, defineProtocol, silentLogger, type System } from "../../src/runtime/index.js";
import { ConfirmedReceiver } from "../../src/runtime/remote/confirmed-receiver.js";
import type { Link } from "../../src/runtime/remote/link.js";
import { RecordKind, type ConfirmedRecord } from "../../src/runtime/remote/record.js";
import { settle } from "../../src/runtime/testkit.js";

const Numbers = defineProtocol("test.numbers", 1, { cast: { take: z.number() } });

let system: System | undefined;
afterEach(() => system?.shutdown());

function open() {
  const own = system = createSystem({ name: "gaps", logger: silentLogger });
  const handled: number[] = [];
  own.spawn(behavior(Numbers, () => ({ cast: { take: (n) => void handled.push(n) } })), { name: "numbers" });
  const line = { system: own, nodeId: "ab", label: "ab", state: "up", link: undefined } as never;
  const receiver = new ConfirmedReceiver(line, { nodeId: "ab", link: {} } as never);
  const answers = new Map<number, string>();
  const link = {
    send: ([kind, payload, , id]: [number, { code: string } | null, null, number]) => {
      answers.set(id, kind === RecordKind.reply ? "ok" : payload!.code);
      return "accepted";
    },
  } as unknown as Link;
  const address = { target: "numbers", protocol: "test.numbers", version: 1, compatibleFrom: 1, name: "take" };
  let id = 0;
  /** @returns the answer, once the actor had its turn. */
  const give = async (run: number, sequence: number, previous: number): Promise<string | undefined> => {
    const record: ConfirmedRecord = {
      kind: "confirmed", payload: sequence, id: ++id, timeoutMs: 1000, outbox: "out:1", sequence, run, previous, address, trace: undefined,
    };
    receiver.onRecord(record, { link, sizeBytes: 10 } as never);
    const own = id;
    await settle();
    return answers.get(own);
  };
  return { give, handled };
}

describe("runs of confirmed casts", () => {
  it("with a gap end there, and the next run brings what was lost", async () => {
    const { give, handled } = open();
    expect(await give(1, 1, 0)).toBe("ok");
    expect(await give(1, 4, 3)).toBe("aborted"); // 2 and 3 were on a link that is gone
    expect(await give(1, 2, 1)).toBe("aborted"); // they come after all, but their run is over
    expect([await give(2, 2, 0), await give(2, 3, 2), await give(2, 4, 3)]).toEqual(["ok", "ok", "ok"]);
    expect(handled).toEqual([1, 2, 3, 4]);
  });

  it("without their first message end at once", async () => {
    const { give, handled } = open();
    expect(await give(1, 2, 1)).toBe("aborted");
    expect([await give(2, 1, 0), await give(2, 2, 1)]).toEqual(["ok", "ok"]);
    expect(handled).toEqual([1, 2]);
  });

  it("pass over numbers that the sender has settled, and answer what was handled without handling it again", async () => {
    const { give, handled } = open();
    expect([await give(1, 1, 0), await give(1, 5, 1)]).toEqual(["ok", "ok"]); // 2 to 4 never came to be on disk
    expect([await give(2, 5, 0), await give(2, 6, 5)]).toEqual(["ok", "ok"]);
    expect(handled).toEqual([1, 5, 6]);
  });
});
