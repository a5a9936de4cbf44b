// Runs tests: each with clients of its own, a few at a time.

import { timeout } from "./check.mjs";
import { Stage } from "./stage.mjs";

// Chromium delays a connection the longer, the more others of its process are connecting: more at a time take longer.
const AT_A_TIME = 3;
const LIMIT_MS = 60_000;

/** Runs one test. */
export async function play(test, setting) {
  const stage = new Stage(setting);
  try {
    await timeout("the test's end", test(stage), LIMIT_MS);
  } finally {
    stage.end();
  }
}

/** Runs all tests of all groups, and returns what failed: `[{ group, name, error }]`, `error` null where nothing did. */
export async function playAll(groups, setting) {
  const results = [];
  const due = Object.entries(groups).flatMap(([group, tests]) => Object.entries(tests).map(([name, test]) => ({ group, name, test })));
  const player = async () => {
    for (let next = due.shift(); next; next = due.shift()) {
      const { group, name, test } = next;
      const error = await play(test, setting).then(
        () => null,
        (error) => `${error?.stack ?? error}\n${error?.message ?? ""}`,
      );
      results.push({ group, name, error });
    }
  };
  await Promise.all(Array.from({ length: AT_A_TIME }, player));
  return results;
}
