// Owns: systems for tests, shut down after each test whatever it left behind, on their own clock.
import { afterEach } from "vitest";
import {
  createSystem, silentLogger, VirtualClock, type System, type SystemOptions,
} from "../../src/runtime/index.js";

const DEADLINE_MS = 50;

const open: { readonly system: System; readonly clock: unknown }[] = [];
afterEach(async () => {
  for (const { system, clock } of open.splice(0)) {
    const down = system.shutdown({ deadlineMs: DEADLINE_MS });
    if (clock instanceof VirtualClock) await clock.advance(DEADLINE_MS);
    await down;
  }
});

export function testSystem(options: Partial<SystemOptions> = {}): System {
  const system = createSystem({ name: "test", logger: silentLogger, ...options });
  open.push({ system, clock: options.clock });
  return system;
}
