import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    // The machine may be shared, and a browser runs at the same time: one file at a time, and long timeouts.
    fileParallelism: false,
    pool: "forks",
    testTimeout: 30_000,
    hookTimeout: 60_000,
    include: ["test/**/*.test.ts"],
  },
});
