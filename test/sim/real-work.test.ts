// Real files and threads under a simulation: none is under way when the next event happens; ends come in one order.
import { execFileSync } from "node:child_process";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { expect, it } from "vitest";

const module = pathToFileURL(join(resolve(import.meta.dirname, "../.."), "dist/runtime/sim/real-work.js")).href;

/** The size of libuv's pool is fixed when a process starts, so each case has one of its own. */
function inProcess(body: string): unknown {
  const code = `
    import { mkdtempSync, rmSync } from "node:fs";
    import { mkdir, stat } from "node:fs/promises";
    import { tmpdir } from "node:os";
    import { join } from "node:path";
    import { watchRealWork } from ${JSON.stringify(module)};
    const directory = mkdtempSync(join(tmpdir(), "tesra-real-work-"));
    const realWork = watchRealWork();
    const order = [];
    ${body}
    rmSync(directory, { recursive: true });
    console.log(JSON.stringify(order));`;
  const env = { ...process.env, UV_THREADPOOL_SIZE: "1" };
  return JSON.parse(execFileSync(process.execPath, ["--input-type=module", "-e", code], { env, encoding: "utf8" }));
}

it("waits for one call that goes through the pool many times", () => {
  expect(inProcess(`
    mkdir(join(directory, ...Array(40).fill("a")), { recursive: true }).then(() => order.push("made"));
    await realWork.quiesce();
    order.push(realWork.quiesce() === undefined ? "quiet" : "not quiet");
  `)).toEqual(["made", "quiet"]);
});

it("lets held work end one at a time, in the order of its start, after files", () => {
  expect(inProcess(`
    const hold = (name, work) => realWork.hold(work).then(() => order.push(name), (error) => order.push(error.message));
    let endFirst;
    hold("first", new Promise((resolve) => { endFirst = resolve; }))
      .then(() => stat(directory)).then(() => order.push("file after first"));
    hold("second", Promise.reject(new Error("second failed")));
    stat(directory).then(() => stat(directory)).then(() => { order.push("files"); endFirst(); });
    await realWork.quiesce();
  `)).toEqual(["files", "first", "file after first", "second failed"]);
});
