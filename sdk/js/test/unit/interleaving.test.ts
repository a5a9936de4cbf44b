/**
 * Any interleaving of actions of the application, the network and the server, against a model of the server (docs/protocol.md).
 * fast-check prints the seed and the shortest failing sequence; `fc.assert(…, { seed, path })` replays it.
 */
import fc from "fast-check";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Channel } from "../../src/index.js";
import { Fake, type FakeSocket } from "./fake.js";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const NAMES = ["a", "history-b", "private-c", "presence-d"];

type Step =
  | { do: "subscribe" | "release" | "unsubscribe" | "publish" | "kick"; name: string }
  | { do: "lose" | "evict" | "reset" | "sign in" | "sign out" }
  | { do: "server reads" | "client reads" | "sign"; count: number }
  | { do: "drop"; code: number }
  | { do: "connect" | "disconnect" | "wait" };

const name = fc.constantFrom(...NAMES);
const count = fc.integer({ min: 1, max: 4 });
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constantFrom("subscribe" as const, "release" as const, "unsubscribe" as const), name }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant("publish" as const), name }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("kick" as const), name }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom("lose" as const, "evict" as const, "reset" as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom("sign in" as const, "sign out" as const) }) },
  { weight: 6, arbitrary: fc.record({ do: fc.constantFrom("server reads" as const, "client reads" as const), count }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant("sign" as const), count }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("drop" as const), code: fc.constantFrom(1006, 1012, 4100, 4201) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom("connect" as const, "disconnect" as const, "wait" as const) }) },
);

/** The messages of one channel. Those after `evicted` can be replayed, if the channel keeps history at all. */
class Log {
  epoch = 1;
  offsets: number[] = [];
  evicted = 0;

  constructor(readonly keeps: boolean) {}

  get last() {
    return this.offsets.at(-1) ?? 0;
  }

  /** The `data` of `socket:subscribed`, and what is replayed. */
  answer(since?: { epoch: string; offset: number }): [unknown, number[]] {
    if (!this.keeps) return [since && { recovered: false }, []];
    const recovered = since?.epoch === `${this.epoch}` && since.offset >= this.evicted && since.offset <= this.last;
    const position = { epoch: `${this.epoch}`, offset: this.last };
    return [since ? { ...position, recovered } : position, recovered ? this.offsets.filter((n) => n > since.offset) : []];
  }
}

/** The server's side of one connection. Requests wait to be read, and replies and messages wait to be delivered. */
class Connection {
  read = 0;
  subscribed = new Set<string>();
  kicked = new Set<string>();
  outbox: (() => void)[] = [];

  signedIn = false;

  constructor(
    readonly socket: FakeSocket,
    readonly id: string,
    readonly logs: Map<string, Log>,
  ) {
    this.outbox.push(() => socket.connected(id));
  }

  say(event: string, channel?: string, data?: unknown) {
    this.outbox.push(() => this.socket.say(event, { ...(channel === undefined ? {} : { channel }), data }));
  }

  publish(channel: string, n: number) {
    const offset = this.logs.get(channel)!.keeps ? { offset: n } : {};
    this.outbox.push(() => this.socket.say("n", { channel, data: n, ...offset }));
  }

  readOne() {
    const request = this.socket.sent[this.read];
    if (!request) return false;
    this.read += 1;
    const { channel, auth, since } = request.data ?? {};
    if (request.event === "socket:signin") {
      expect(auth, "signed for this connection").toBe(`${this.id}:undefined`);
      this.signedIn = true;
      this.say("socket:signed_in", undefined, { user_id: "u" });
    } else if (request.event === "socket:subscribe") {
      expect(this.subscribed.has(channel), `a second subscribe to ${channel}`).toBe(false);
      if (/^pr/.test(channel)) expect(auth, "signed for this connection").toBe(`${this.id}:${channel}`);
      this.subscribed.add(channel);
      this.kicked.delete(channel);
      const [data, replay] = this.logs.get(channel)!.answer(since);
      this.say("socket:subscribed", channel, data);
      for (const n of replay) this.publish(channel, n);
    } else if (request.event === "socket:unsubscribe") {
      if (this.subscribed.delete(channel)) this.say("socket:unsubscribed", channel);
      else {
        expect(this.kicked.has(channel), `an unsubscribe from ${channel} without a subscription`).toBe(true);
        this.say("socket:unsubscribe.error", channel, { error: "…", code: "not_subscribed" });
      }
    }
    return true;
  }
}

async function run(steps: Step[]) {
  const fake = new Fake();
  const connections: Connection[] = [];
  const signing: (() => void)[] = [];
  const auth = ({ socketId, channel }: any): Promise<any> =>
    new Promise((resolve) => signing.push(() => resolve({ auth: `${socketId}:${channel}`, user_data: "{}" })));
  const socket = fake.client({ autoConnect: false, authTimeout: 1_000_000, auth });
  const logs = new Map(NAMES.map((name) => [name, new Log(name !== "a")]));
  /** `knows`: the last message that the application knows, or `undefined` if it may have missed some. */
  const handles: { channel: Channel; released: boolean; seen: number[]; knows: number | undefined }[] = [];
  const users: Channel[] = [];
  const wanted = new Set<string>();
  let published = 0;

  const held = (name: string) => handles.filter(({ channel, released }) => channel.name === name && !released);

  const current = () => {
    for (const socket of fake.sockets.slice(connections.length)) {
      connections.push(new Connection(socket, `s${connections.length}`, logs));
    }
    const connection = connections.at(-1);
    return connection && connection.socket.readyState < 2 ? connection : undefined;
  };
  const settle = async () => {
    for (let turn = 0; turn < 12; turn += 1) await Promise.resolve();
  };

  const perform = (step: Step) => {
    const connection = current();
    switch (step.do) {
      case "subscribe": {
        const channel = socket.subscribe(step.name);
        const handle: (typeof handles)[number] = { channel, released: false, seen: [], knows: undefined };
        const log = logs.get(step.name)!;
        channel.bind("socket:load", () => (handle.knows = log.last));
        channel.bind("n", (n) => {
          expect(handle.released, "a message after its release").toBe(false);
          handle.seen.push(n);
          if (handle.knows === undefined) return;
          expect(log.offsets.filter((other) => other > handle.knows! && other < n), "missing").toEqual([]);
          handle.knows = Math.max(handle.knows, n);
        });
        channel.bind("socket:unsubscribed", () => wanted.delete(step.name));
        handles.push(handle);
        return void wanted.add(step.name);
      }
      case "release": {
        const [handle] = held(step.name);
        if (!handle) return;
        handle.released = true;
        if (held(step.name).length === 0) wanted.delete(step.name);
        void handle.channel.unsubscribe();
        return void handle.channel.unsubscribe();
      }
      case "unsubscribe":
        for (const handle of held(step.name)) handle.released = true;
        wanted.delete(step.name);
        return void socket.unsubscribe(step.name);
      case "publish":
        published += 1;
        logs.get(step.name)!.offsets.push(published);
        if (connection?.subscribed.has(step.name)) connection.publish(step.name, published);
        return;
      case "lose": {
        // A message that the server takes but does not deliver: it tells the client.
        const log = logs.get("history-b")!;
        log.offsets.push((published += 1));
        if (!connection?.subscribed.has("history-b")) return;
        const position = { epoch: `${log.epoch}`, offset: log.last };
        return void connection.outbox.push(() => {
          for (const handle of held("history-b")) if (handle.channel.state === "subscribed") handle.knows = undefined;
          connection.socket.say("socket:gap", { channel: "history-b", data: position });
        });
      }
      case "evict":
        for (const log of logs.values()) log.evicted = log.last;
        return;
      case "reset":
        // The server restarts: its logs are others.
        for (const log of logs.values()) log.epoch += 1;
        return connection?.socket.end(1012);
      case "sign in":
        return void users.push(socket.signIn(auth));
      case "sign out":
        return void users.pop()?.unsubscribe();
      case "kick":
        if (connection?.subscribed.delete(step.name)) {
          connection.kicked.add(step.name);
          connection.say("socket:unsubscribed", step.name);
        }
        return;
      case "server reads":
        for (let n = 0; n < step.count; n += 1) connection?.readOne();
        return;
      case "client reads":
        for (let n = 0; n < step.count; n += 1) connection?.outbox.shift()?.();
        return;
      case "sign":
        for (let n = 0; n < step.count; n += 1) signing.shift()?.();
        return;
      case "drop":
        return connection?.socket.end(step.code);
      case "connect":
        return void socket.connect();
      case "disconnect":
        return socket.disconnect();
      case "wait":
        vi.advanceTimersByTime(9_000);
    }
  };

  for (const step of steps) {
    perform(step);
    await settle();
  }

  // Without further steps, and with a network that works, the server ends up with exactly what is wanted.
  void socket.connect();
  for (let idle = 0; idle < 3; ) {
    const connection = current();
    let busy = false;
    if (!connection) vi.advanceTimersByTime(1_000);
    while (connection?.readOne() || connection?.outbox.length || signing.length) {
      busy = true;
      connection?.outbox.shift()?.();
      signing.shift()?.();
      await settle();
    }
    await settle();
    idle = busy || !connection ? 0 : idle + 1;
  }
  expect([...current()!.subscribed].sort()).toEqual([...wanted].sort());
  expect(users.map(({ state }) => state)).toEqual(users.map(() => "subscribed"));
  if (users.length > 0) expect(current()!.signedIn).toBe(true);
  vi.advanceTimersByTime(5_000); // gaps are reported by now
  for (const { channel, released, knows } of handles) {
    if (!released && wanted.has(channel.name)) expect(knows, "everything is known").toBe(logs.get(channel.name)!.last);
  }
  for (const name of wanted) {
    perform({ do: "publish", name });
    current()!.outbox.shift()!();
    for (const { channel, seen } of held(name)) expect([channel.state, seen.at(-1)]).toEqual(["subscribed", published]);
  }
  for (const { seen } of handles) expect(seen, "in order, once").toEqual([...new Set(seen)].sort((a, b) => a - b));
  socket.disconnect();
  await settle();
  vi.clearAllTimers();
}

test("no interleaving subscribes twice, delivers to a released reference, loses a wanted channel, or misses a message silently", async () => {
  await fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 60 }), run), { numRuns: 1_500 });
});
