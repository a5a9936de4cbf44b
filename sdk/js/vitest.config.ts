import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    // The machine is shared, and a browser runs beside: one file at a time, and patience.
    fileParallelism: false,
    pool: "forks",
    testTimeout: 30_000,
    hookTimeout: 60_000,
    include: ["test/**/*.test.ts"],
  },
});
