// Assertions and waiting, for Node and browsers alike.

const LIMIT_MS = 20_000;

/** Fails unless both are the same JSON value, or the same value. */
export function equal(actual, expected, what = "") {
  if (!same(actual, expected)) throw new Error(`${what && `${what}: `}${show(actual)}, expected: ${show(expected)}`);
}

export function ok(condition, what) {
  if (!condition) throw new Error(what);
}

export function matches(text, pattern) {
  ok(typeof text === "string" && pattern.test(text), `${show(text)} does not match ${pattern}`);
}

function same(one, other) {
  if (typeof one !== "object" || typeof other !== "object" || one === null || other === null) return Object.is(one, other);
  const keys = Object.keys(one);
  return Array.isArray(one) === Array.isArray(other) && keys.length === Object.keys(other).length && keys.every((key) => Object.hasOwn(other, key) && same(one[key], other[key]));
}

function show(value) {
  const text = value instanceof Error ? String(value) : JSON.stringify(value);
  return text && text.length > 1000 ? `${text.slice(0, 1000)}…` : String(text);
}

/** Fails if the promise is not settled in time. */
export function timeout(what, promise, limit = LIMIT_MS) {
  let timer;
  const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error(`not within ${limit} ms: ${what}`)), limit)));
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

export async function until(what, condition) {
  for (const start = Date.now(); ; await sleep(20)) {
    if (await condition()) return;
    if (Date.now() - start > LIMIT_MS) throw new Error(`not within ${LIMIT_MS} ms: ${what}`);
  }
}

export function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** What an emitter of pusher-js tells next about an event. */
export function once(emitter, event) {
  return timeout(
    event,
    new Promise((resolve) => {
      const heard = (data) => {
        emitter.unbind(event, heard);
        resolve(data);
      };
      emitter.bind(event, heard);
    }),
  );
}

/** Things that arrive, in order. */
export class Mailbox {
  constructor() {
    this.waiting = [];
    this.arrived = [];
  }

  put(thing) {
    const taker = this.waiting.shift();
    if (taker) taker(thing);
    else this.arrived.push(thing);
  }

  /** The next thing. */
  take(what = "the next thing") {
    if (this.arrived.length > 0) return Promise.resolve(this.arrived.shift());
    return timeout(what, new Promise((resolve) => this.waiting.push(resolve)));
  }
}

/**
 * Everything that an emitter of pusher-js tells, in order: fails where something other than expected is next. Errors are told
 * to a channel and to its connection; see `errorsOf` for those of the connection.
 */
export class Record {
  constructor(emitter) {
    this.box = new Mailbox();
    emitter.bind_global((event, data) => event === "pusher:error" || this.box.put([event, data]));
  }

  /** The data of the next event, which must be this one. */
  async next(event) {
    const [name, data] = await this.box.take(event);
    ok(name === event, `${name} ${show(data)}, expected: ${event}`);
    return data;
  }

  /** The next event must be this one, with this data. */
  async expect(event, data) {
    equal(await this.next(event), data, event);
  }

  /** Nothing has arrived that was not taken. */
  empty() {
    equal(this.box.arrived, []);
  }
}

/** The errors of a connection. */
export function errorsOf(client) {
  const box = new Mailbox();
  client.connection.bind("error", (error) => box.put(error));
  return box;
}

/** The states of a client, from now on. */
export function statesOf(client) {
  const states = [];
  client.connection.bind("state_change", ({ current }) => states.push(current));
  return states;
}

/** The next error must be one that keeps the connection: this code, and a message that fits. */
export async function keptError(errors, code, pattern) {
  const { type, data } = await errors.take("an error");
  equal([type, data.code], ["PusherError", code], data.message);
  matches(data.message, pattern);
}

/** Subscribes, and returns the channel's record when it is subscribed. */
export async function subscribed(client, name) {
  const channel = client.subscribe(name);
  const record = new Record(channel);
  const data = await record.next("pusher:subscription_succeeded");
  return Object.assign(record, { channel, data });
}
