/** Channels with history on a real server, over a network that fails. */
import { expect, test } from "vitest";
import { backend, client, cut, PATIENCE, record, serve, server } from "./site.js";

const RULES = `
[[channel]]
match = "short:*"
history = 5

[[channel]]
match = "last:*"
history = 5
on-subscribe = "last"

[[channel]]
match = "kept:*"
history = 1000
`;

serve(RULES);

async function publish(channel: string, ...numbers: number[]): Promise<void> {
  await Promise.all(numbers.map((n) => backend.publish(channel, "n", n)));
}

const numbers = (from: number, to: number) => Array.from({ length: to - from }, (_, n) => from + n);

test("what was published while the network was cut arrives after it, once, in order", async () => {
  const channel = client().subscribe("kept:a");
  const seen = record(channel);
  const recovered: boolean[] = [];
  channel.bind("socket:subscribed", (data) => recovered.push(data.recovered));
  await channel.subscribed;
  await publish("kept:a", ...numbers(0, 50));
  await expect.poll(() => seen.length, PATIENCE).toBe(51);
  await cut([channel], () => publish("kept:a", ...numbers(50, 200)));
  await publish("kept:a", ...numbers(200, 210));
  await expect.poll(() => seen.length, PATIENCE).toBe(211);
  expect([seen, recovered]).toEqual([["load", ...numbers(0, 210)], [false, true]]);
  const { epoch, offset } = await backend.history("kept:a", { limit: 0 });
  expect(channel.position).toMatchObject({ epoch, offset });
});

test("under load, cut again and again: nothing is missing, nothing is double", async () => {
  const socket = client();
  const channels = ["kept:b", "kept:c"].map((name) => socket.subscribe(name));
  const seen = channels.map(record);
  await Promise.all(channels.map(({ subscribed }) => subscribed));
  let published = 0;
  let done = false;
  const publishing = (async () => {
    while (!done) {
      await Promise.all(channels.map(({ name }) => backend.publish(name, "n", published)));
      published += 1;
      // Paced, so that a fast machine does not publish more during a cut than the server replays.
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  })();
  for (let round = 0; round < 5; round += 1) {
    const until = published + 40;
    await expect.poll(() => published, PATIENCE).toBeGreaterThan(until);
    await cut(channels, () => expect.poll(() => published, PATIENCE).toBeGreaterThan(until + 40));
  }
  done = true;
  await publishing;
  await expect.poll(() => seen.map(({ length }) => length), PATIENCE).toEqual([published + 1, published + 1]);
  for (const one of seen) expect(one).toEqual(["load", ...numbers(0, published)]);
});

test("more was published than is kept: nothing is replayed, and the application loads", async () => {
  const channel = client().subscribe("short:a");
  const seen = record(channel);
  await channel.subscribed;
  await publish("short:a", 0);
  await expect.poll(() => seen.length, PATIENCE).toBe(2);
  await cut([channel], () => publish("short:a", ...numbers(1, 8)));
  await publish("short:a", 8);
  await expect.poll(() => seen.length, PATIENCE).toBe(4);
  expect(seen).toEqual(["load", 0, "load", 8]);
});

test("after a restart of the server the application loads, and goes on", async () => {
  const channel = client().subscribe("kept:d");
  const seen = record(channel);
  await channel.subscribed;
  await publish("kept:d", 0);
  const before = channel.position;
  await server.stop();
  await server.start();
  await expect.poll(() => channel.position?.epoch, PATIENCE).not.toBe(before?.epoch);
  await channel.subscribed;
  await publish("kept:d", 1);
  await expect.poll(() => seen.length, PATIENCE).toBe(4);
  expect(seen).toEqual(["load", 0, "load", 1]);
});

test("what this client caused itself is left out of the replay", async () => {
  const socket = client();
  const channel = socket.subscribe("kept:e");
  const seen = record(channel);
  await channel.subscribed;
  const { socketId } = socket;
  await cut([channel], async () => {
    await backend.publish("kept:e", "n", 0, { exclude: socketId! });
    await backend.publish("kept:e", "n", 1);
  });
  await expect.poll(() => seen.length, PATIENCE).toBe(2);
  expect(seen).toEqual(["load", 1]);
});

test("a state with its position, and what follows it", async () => {
  await publish("kept:f", 0, 1, 2);
  const { messages, epoch, offset } = await backend.history("kept:f");
  await publish("kept:f", 3, 4);
  const channel = client().subscribe("kept:f", { since: { epoch: epoch!, offset: offset! } });
  const seen = record(channel);
  await channel.subscribed;
  await publish("kept:f", 5);
  await expect.poll(() => seen.length, PATIENCE).toBe(3);
  expect([messages.map(({ data }) => data), seen]).toEqual([[0, 1, 2], [3, 4, 5]]);
});

test.each([
  ["of another life of the channel", { epoch: "0123456789abcdef", offset: 1 }],
  ["that is not one of this server", { epoch: "x", offset: 1 }],
])("a position %s: the application loads", async (_, since) => {
  const channel = client().subscribe("kept:f", { since });
  const seen = record(channel);
  await channel.subscribed;
  expect(seen).toEqual(["load"]);
});

test("a position that cannot be read is refused for good", async () => {
  const channel = client().subscribe("kept:f", { since: { epoch: "x", offset: -1 } });
  await expect(channel.subscribed).rejects.toMatchObject({ code: "malformed_since" });
});

test("a channel without history: a load after each cut", async () => {
  const channel = client().subscribe("plain");
  const seen = record(channel);
  await channel.subscribed;
  await cut([channel], () => publish("plain", 0));
  await publish("plain", 1);
  await expect.poll(() => seen.length, PATIENCE).toBe(3);
  expect([seen, channel.position]).toEqual([["load", "load", 1], undefined]);
});

test("the newest message greets a subscriber, and comes once", async () => {
  await publish("last:a", 0, 1);
  const channel = client().subscribe("last:a");
  const seen = record(channel);
  await expect.poll(() => seen.length, PATIENCE).toBe(2);
  await cut([channel], () => publish("last:a", 2));
  await expect.poll(() => seen.length, PATIENCE).toBe(3);
  expect(seen).toEqual(["load", 1, 2]);
});

test("a hundred channels are recovered on one connection", async () => {
  const socket = client();
  const channels = numbers(0, 100).map((n) => socket.subscribe(`kept:many.${n}`));
  const seen = channels.map(record);
  await Promise.all(channels.map(({ subscribed }) => subscribed));
  await cut(channels, () => Promise.all(channels.map(({ name }) => publish(name, 0, 1, 2))));
  await expect.poll(() => seen.every(({ length }) => length === 4), PATIENCE).toBe(true);
  for (const one of seen) expect(one).toEqual(["load", 0, 1, 2]);
});

test("dedupe publishes once; history is read in pages, from either end", async () => {
  const subscribed = client().subscribe("kept:g");
  const seen = record(subscribed);
  await subscribed.subscribed;
  for (const n of [0, 1, 1, 2]) await backend.publish("kept:g", "n", n, { dedupe: `order-${n}` });
  const again = await backend.request("publish", { channel: "kept:g", event: "n", data: 1, dedupe: "order-1" });
  expect(again).toMatchObject({ subscribers: 1, duplicate: true, offset: expect.any(Number) });
  await expect.poll(() => seen.length, PATIENCE).toBe(4);
  const first = await backend.history("kept:g", { limit: 2 });
  const second = await backend.history("kept:g", { limit: 2, after: first.next! });
  expect([first, second].map(({ messages }) => messages.map(({ data }) => data))).toEqual([[0, 1], [2]]);
  expect([first.complete, second.next]).toEqual([true, undefined]);
  const newest = await backend.history("kept:g", { limit: 1, reverse: true });
  expect(newest.messages).toEqual([{ offset: newest.offset, event: "n", data: 2 }]);
  const { epoch, messages } = first;
  const rest = await backend.history("kept:g", { since: { epoch: epoch!, offset: messages[1]!.offset, socket_id: "1.1" } });
  expect(rest.messages.map(({ data }) => data)).toEqual([2]);
});
