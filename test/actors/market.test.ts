// The account of a task is read at the chain's head of that moment, not at one that the client library remembers.
import { createPublicClient, custom } from "viem";
import { expect, it } from "vitest";
import { readTaskAccount } from "../../src/actors/market.js";

it("asks for the head anew at each reading: the settlement may be in the newest block", async () => {
  let head = 0;
  const asked: string[] = [];
  const request = ({ method, params }: { method: string; params: { toBlock: string }[] }): Promise<unknown> => {
    if (method === "eth_blockNumber") return Promise.resolve(`0x${(head += 1).toString(16)}`);
    asked.push(params[0]!.toBlock);
    return Promise.resolve([]);
  };
  const client = createPublicClient({ transport: custom({ request: request as never }) });
  for (let i = 0; i < 2; i++) await expect(readTaskAccount(client, 1n)).rejects.toThrow("task 1 is not on this chain");
  expect(asked).toEqual(["0x1", "0x2"]);
});
