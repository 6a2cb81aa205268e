// Owns our side of the measures inside one process.
import * as runtime from "../../dist/runtime/index.js";
import { workloads } from "./local-workloads.mjs";
import { perSecond, print, sideArguments } from "./timing.mjs";

const measures = workloads(runtime);
const { measure, seconds } = sideArguments(measures);
const system = runtime.createSystem({ name: "bench", logger: runtime.silentLogger });
const { go, first } = measures[measure](system);
const values = await perSecond(seconds, go, { first });
await system.shutdown();
print(values);
