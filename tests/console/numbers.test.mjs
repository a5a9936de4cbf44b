// How the console computes and formats the server's numbers.

import assert from "node:assert/strict";
import { test } from "node:test";
import { age, bytes, messageRates, micros, percent, quantile, sample, short, ticks, whole } from "./numbers.mjs";

const plain = (text) => text.replaceAll("\u202f", " ");

test("quantiles are of the values between two samples", () => {
  const stats = (...counts) => ({ w_us_to_4: counts[0], w_us_to_16: counts[2], w_us_to_8: counts[1], w_us_above: counts[3] });
  const before = stats(100, 0, 0, 0);
  assert.equal(quantile(before, before, "w", 0.5), null);
  assert.equal(quantile(before, stats(102, 0, 0, 0), "w", 0.5), 2, "the middle of the first bucket");
  assert.equal(quantile(before, stats(100, 0, 10, 0), "w", 1), 16);
  assert.equal(quantile(before, stats(100, 0, 10, 0), "w", 0.5), 12);
  assert.equal(quantile(before, stats(101, 0, 0, 1), "w", 0.99), 16, "above the last bound: that bound");
});

test("rates use the server's clock", () => {
  const answer = (at_ms, deliveries, turn_us_sum, turns) => ({
    at_ms,
    stats: { connections: 3, deliveries, publishes: 0, messages_in: 0, bytes_in: 0, bytes_out: 0 },
    shards: [{ deliveries, messages_in: 0, turns, turn_us_sum }],
    process: { cpu_s: at_ms / 2000 },
  });
  const between = sample(answer(1_000, 10, 0, 0), answer(3_000, 30, 500_000, 10), 7);
  assert.equal(between.time, 7);
  assert.equal(between.deliveries, 10);
  assert.equal(between.shards[0].busy, 0.25);
  assert.equal(between.shards[0].turn_us, 50_000);
  assert.equal(between.cpu, 0.5);
  assert.equal(sample(answer(1_000, 10, 0, 5), answer(2_000, 10, 0, 5), 0).shards[0].turn_us, null);
});

test("a channel has a rate if the previous sample has it", () => {
  const answer = (at_ms, ...channels) => ({ at_ms, channels: channels.map(([channel, messages]) => ({ channel, messages })) });
  const after = answer(6_000, ["a", 30], ["new", 7], ["anew", 1], ["still", 4]);
  assert.deepEqual(messageRates(answer(1_000, ["still", 4], ["anew", 9], ["a", 10], ["gone", 1]), after), [4, null, null, 0]);
  assert.deepEqual(messageRates(null, after), [null, null, null, null]);
});

test("axes end at round numbers", () => {
  assert.deepEqual(ticks(0), [0, 1]);
  assert.deepEqual(ticks(1, 4), [0, 0.5, 1]);
  assert.deepEqual(ticks(7, 3), [0, 5, 10]);
  assert.deepEqual(ticks(100_000, 4), [0, 50_000, 100_000]);
  assert.deepEqual(ticks(390 * 1024, 3, true), [0, 200 * 1024, 400 * 1024]);
  assert.deepEqual(ticks(17, 3, true), [0, 10, 20]);
  for (const max of [0.003, 1, 3, 9.99, 12_345, 1e9]) {
    const axis = ticks(max);
    assert.ok(axis.at(-1) >= max && axis.length <= 6, `${max}: ${axis}`);
  }
});

test("numbers are formatted for people", () => {
  const check = (text, expected) => assert.equal(plain(text), expected);
  check(whole(1_234_567), "1 234 567");
  check(whole(null), "–");
  check(short(0), "0");
  check(short(999), "999");
  check(short(1_234), "1.23 k");
  check(short(999_999), "1 M");
  check(short(0.001), "<0.01");
  check(bytes(1536), "1.5 KiB");
  check(bytes(17), "17 B");
  check(micros(12.34), "12.3 µs");
  check(micros(999_700), "1 s");
  check(micros(1_500), "1.5 ms");
  check(percent(0.1234), "12.3 %");
  check(age(0.4), "0 s");
  check(age(59), "59 s");
  check(age(3_600), "1 h");
  check(age(90_061), "1 d 1 h");
});
