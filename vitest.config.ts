import { defineConfig } from "vitest/config";

// Two cores are the floor: one worker a core, and files that start whole networks run one at a time.
export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    testTimeout: 30_000,
    hookTimeout: 60_000,
    maxWorkers: 2,
    pool: "forks",
  },
});
