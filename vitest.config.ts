import { configDefaults, defineConfig } from "vitest/config";

/** Files that start whole networks, seven processes each: one at a time, after the others. */
const NETWORKS = ["test/actors/**/*.test.ts", "test/cli/network.test.ts", "test/examples/**/*.test.ts"];

// Two cores are the floor: one worker a core for the rest.
export default defineConfig({
  test: {
    testTimeout: 30_000,
    hookTimeout: 60_000,
    pool: "forks",
    projects: [
      {
        extends: true,
        test: {
          name: "areas", include: ["test/**/*.test.ts"], exclude: [...configDefaults.exclude, ...NETWORKS],
          maxWorkers: 2, sequence: { groupOrder: 0 },
        },
      },
      { extends: true, test: { name: "networks", include: NETWORKS, maxWorkers: 1, sequence: { groupOrder: 1 } } },
    ],
  },
});
