import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { type Auth, CorecastError } from "../../src/index.js";
import { Fake } from "./fake.js";

const UUID = "1ba1b6cb-0127-48f8-b5a5-9fd79a7c68a6";
let requests: { url: string; init: RequestInit & { body: URLSearchParams } }[];
let respond: (form: URLSearchParams) => Response | Promise<Response>;

beforeEach(() => {
  vi.useFakeTimers();
  requests = [];
  respond = () => Response.json({ auth: "key:sig" });
  vi.stubGlobal("fetch", async (url: string, init: (typeof requests)[0]["init"]) => {
    requests.push({ url, init });
    return respond(init.body);
  });
});
afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

async function subscribed(auth: Auth, ...names: string[]) {
  const fake = new Fake();
  const socket = fake.client({ auth });
  const channels = names.map((name) => socket.subscribe(name));
  fake.last.connected(UUID);
  await vi.advanceTimersByTimeAsync(0);
  return { fake, socket, channels, subscribes: () => fake.last.sent.map(({ data }) => data) };
}

type Subscribed = Awaited<ReturnType<typeof subscribed>>;

test("an endpoint is POSTed socket_id and channel_name, and its answer is sent", async () => {
  respond = () => Response.json({ auth: "key:sig", channel_data: "{}" });
  const { subscribes } = await subscribed(
    { endpoint: "/auth", headers: { "X-Token": "t" }, params: { tenant: "1" }, credentials: "include" },
    "private-a",
  );
  expect(requests.map(({ url, init }) => [url, init.method, String(init.body), init.headers, init.credentials])).toEqual([
    ["/auth", "POST", `tenant=1&socket_id=${UUID}&channel_name=private-a`, { "X-Token": "t" }, "include"],
  ]);
  expect(subscribes()).toEqual([{ channel: "private-a", auth: "key:sig", channel_data: "{}" }]);
});

test("only private channels are signed", async () => {
  const { subscribes } = await subscribed("/auth", "a", "private-b");
  expect([requests.length, subscribes()]).toEqual([1, [{ channel: "a" }, { channel: "private-b", auth: "key:sig" }]]);
});

test("headers may be a function, called for every request", async () => {
  let token = 0;
  await subscribed({ endpoint: "/auth", headers: async () => ({ token: String(++token) }) }, "private-a", "private-b");
  expect(requests.map(({ init }) => init.headers)).toEqual([{ token: "1" }, { token: "2" }]);
});

test("the decimal spelling of the socket_id, for Pusher's libraries", async () => {
  await subscribed({ endpoint: "/auth", socketId: "decimal" }, "private-a");
  expect(requests[0]!.init.body.get("socket_id")).toBe(`${0x1ba1b6cb012748f8n}.${0xb5a59fd79a7c68a6n}`);
});

test("batch: one request for all, each with its own answer", async () => {
  respond = () => Response.json({ "private-a": { auth: "k:a" }, "private-b": { error: "not yours" } });
  const { channels, subscribes } = await subscribed({ endpoint: "/auth", batch: true }, "private-a", "private-b", "private-c");
  expect(requests.map(({ init }) => init.body.getAll("channel_name[]"))).toEqual([["private-a", "private-b", "private-c"]]);
  expect(subscribes()).toEqual([{ channel: "private-a", auth: "k:a" }]);
  await expect(channels[1]!.subscribed).rejects.toMatchObject({ code: "auth_refused", message: "not yours" });
  await expect(channels[2]!.subscribed).rejects.toMatchObject({ code: "auth_refused" });
});

test("batch: a channel that is requested later is another request", async () => {
  respond = (form) => Response.json(Object.fromEntries(form.getAll("channel_name[]").map((name) => [name, { auth: name }])));
  const { socket, subscribes } = await subscribed({ endpoint: "/auth", batch: true }, "private-a");
  socket.subscribe("private-b");
  await vi.advanceTimersByTimeAsync(0);
  expect(requests).toHaveLength(2);
  expect(subscribes().map(({ auth }) => auth)).toEqual(["private-a", "private-b"]);
});

test("signed again for every connection", async () => {
  const auth = vi.fn(async ({ socketId, channel }) => ({ auth: `${socketId}:${channel}` }));
  const { fake, subscribes } = await subscribed(auth, "private-a");
  expect(subscribes()).toEqual([{ channel: "private-a", auth: `${UUID}:private-a` }]);
  fake.last.end(1006);
  await vi.advanceTimersByTimeAsync(500);
  fake.last.connected("s2");
  await vi.advanceTimersByTimeAsync(0);
  expect(subscribes()).toEqual([{ channel: "private-a", auth: "s2:private-a" }]);
});

test("a signature that comes after the connection is gone is not used", async () => {
  const answers: ((signature: { auth: string }) => void)[] = [];
  const { fake, subscribes } = await subscribed(() => new Promise((resolve) => answers.push(resolve)), "private-a");
  fake.last.end(1006);
  await vi.advanceTimersByTimeAsync(500);
  fake.last.connected("s2");
  answers[0]!({ auth: "old" });
  answers[1]!({ auth: "new" });
  await vi.advanceTimersByTimeAsync(0);
  expect(subscribes()).toEqual([{ channel: "private-a", auth: "new" }]);
});

/** The channel, from an endpoint that gives this answer. */
async function answered(answer: () => Response) {
  respond = answer;
  const { channels, subscribes } = await subscribed("https://example.com/auth", "private-a");
  return { channel: channels[0]!, subscribes };
}

const redirected = (response: Response, url: string) => Object.defineProperties(response, { redirected: { value: true }, url: { value: url } });

test.each([
  [400, "", () => new Response("", { status: 400 })],
  [401, "", () => new Response("", { status: 401 })],
  [403, "", () => new Response("no", { status: 403 })],
  [404, "", () => new Response("", { status: 404 })],
  [302, "", () => new Response("", { status: 302 })],
  [501, "", () => new Response("", { status: 501 })],
  [505, "", () => new Response("", { status: 505 })],
  [204, "an empty body", () => new Response(null, { status: 204 })],
  [200, "an empty body", () => new Response("")],
  [200, "<html>Log in", () => new Response("<html>Log in</html>")],
  [200, "https://example.com/login", () => redirected(new Response("<html>"), "https://example.com/login")],
  [200, "no signature", () => Response.json(null)],
  [200, "no signature", () => Response.json([])],
  [200, "no signature", () => Response.json({})],
  [200, "no signature", () => Response.json({ auth: 1 })],
  [200, "no signature", () => Response.json({ auth: "k:s", channel_data: {} })],
])("status %i is final, with the URL and the status: %s", async (status, text, answer) => {
  const { channel, subscribes } = await answered(answer);
  const error: CorecastError = await channel.subscribed.then(
    () => expect.fail("subscribed"),
    (error) => error,
  );
  expect(error).toMatchObject({ code: "auth_refused", status });
  for (const part of ["https://example.com/auth", `answered ${status}`, text]) expect(error.message).toContain(part);
  await vi.advanceTimersByTimeAsync(100_000);
  expect([requests.length, subscribes()]).toEqual([1, []]);
});

test("a refusal with an error of its own is reported with it", async () => {
  const { channel } = await answered(() => Response.json({ error: "not yours" }));
  await expect(channel.subscribed).rejects.toMatchObject({ code: "auth_refused", message: "not yours", status: 200 });
});

test.each<[string, number | undefined, string, () => Response | Promise<Response>]>([
  ["500", 500, "answered 500", () => new Response("", { status: 500 })],
  ["502", 502, "answered 502", () => new Response("<html>", { status: 502 })],
  ["408", 408, "answered 408", () => new Response("", { status: 408 })],
  ["425", 425, "answered 425", () => new Response("", { status: 425 })],
  ["429", 429, "answered 429", () => new Response("", { status: 429 })],
  ["no connection", undefined, "fetch failed", () => Promise.reject(new TypeError("fetch failed"))],
  ["half an answer", undefined, "cut off", () => new Response(new ReadableStream({ start: (body) => body.error(new Error("cut off")) }))],
  ["no answer", undefined, "no signature for private-a within 10000 ms", () => new Promise<Response>(() => {})],
])("%s is retried, and reported with the URL and the status", async (_, status, text, failure) => {
  respond = failure;
  const fake = new Fake();
  const channel = fake.client({ auth: "https://example.com/auth" }).subscribe("private-a");
  const told = vi.fn();
  channel.bind("socket:subscribe.error", told);
  fake.last.connected(UUID);
  for (let ms = 0; told.mock.calls.length === 0; ms += 1_000) {
    expect(ms).toBeLessThanOrEqual(10_000);
    await vi.advanceTimersByTimeAsync(1_000 * Math.sign(ms));
  }
  const [error] = told.mock.calls[0]!;
  expect([error.code, error.status]).toEqual(["auth_unavailable", status]);
  for (const part of ["https://example.com/auth", text]) expect(error.message).toContain(part);
  respond = () => Response.json({ auth: "key:sig" });
  await vi.advanceTimersByTimeAsync(1_100);
  expect(fake.last.sent.map(({ data }) => data)).toEqual([{ channel: "private-a", auth: "key:sig" }]);
});

test.each([
  ["seconds", 503, "30", 30_000],
  ["a date", 429, () => new Date(Date.now() + 60_000).toUTCString(), 60_000],
  ["a status that is otherwise final", 403, "5", 5_000],
  ["a time that has passed", 403, "Wed, 21 Oct 2015 07:28:00 GMT", 0],
])("Retry-After is respected: %s", async (_, status, after, ms) => {
  vi.setSystemTime(new Date("2026-01-01T00:00:00Z"));
  const random = vi.spyOn(Math, "random").mockReturnValue(0);
  const header = typeof after === "function" ? after() : after;
  respond = () => new Response("", { status, headers: { "Retry-After": header } });
  const { fake, socket, subscribes } = await subscribed("/auth", "private-a");
  respond = () => Response.json({ auth: "key:sig" });
  const least = Math.max(ms, 500);
  // Neither another channel nor a new connection asks the endpoint earlier.
  if (ms) {
    socket.subscribe("private-b");
    await vi.advanceTimersByTimeAsync(1_000);
    fake.last.end(1006);
    await vi.advanceTimersByTimeAsync(500);
    fake.last.connected(UUID);
    await vi.advanceTimersByTimeAsync(least - 1_501);
  } else {
    await vi.advanceTimersByTimeAsync(least - 1);
  }
  expect(requests).toHaveLength(1);
  await vi.advanceTimersByTimeAsync(1);
  expect(subscribes().map(({ channel }) => channel)).toEqual(ms ? ["private-a", "private-b"] : ["private-a"]);
  random.mockRestore();
});

test("a Retry-After that is not a time changes nothing", async () => {
  const { channel } = await answered(() => new Response("", { status: 403, headers: { "Retry-After": "soon" } }));
  await expect(channel.subscribed).rejects.toMatchObject({ code: "auth_refused", status: 403 });
});

test.each([NaN, -1, "soon", null, {}])("a retryAfter of %o changes nothing", async (retryAfter) => {
  const auth = vi.fn().mockRejectedValue(Object.assign(new Error("busy"), { retryAfter }));
  await subscribed(auth, "private-a");
  await vi.advanceTimersByTimeAsync(499);
  expect(auth).toHaveBeenCalledTimes(1);
  await vi.advanceTimersByTimeAsync(501);
  expect(auth).toHaveBeenCalledTimes(2);
});

test("an endless retryAfter waits as long as a timer can", async () => {
  const auth = vi.fn().mockRejectedValue(Object.assign(new Error("busy"), { retryAfter: Infinity }));
  await subscribed(auth, "private-a");
  await vi.advanceTimersByTimeAsync(100_000);
  expect(auth).toHaveBeenCalledTimes(1);
});

test("a function asks to wait by throwing an error with retryAfter", async () => {
  const auth = vi.fn().mockRejectedValueOnce(Object.assign(new Error("busy"), { retryAfter: 30_000 })).mockReturnValue({ auth: "k:s" });
  await subscribed(auth, "private-a");
  await vi.advanceTimersByTimeAsync(29_999);
  expect(auth).toHaveBeenCalledTimes(1);
  await vi.advanceTimersByTimeAsync(1_000);
  expect(auth).toHaveBeenCalledTimes(2);
});

test.each([
  ["disconnect", ({ socket }: Subscribed) => socket.disconnect()],
  ["the loss of the connection", ({ fake }: Subscribed) => fake.last.end(1006)],
  ["unsubscribe", ({ channels }: Subscribed) => void channels.map((channel) => channel.unsubscribe())],
])("%s aborts pending requests", async (_, end) => {
  for (const batch of [false, true]) {
    requests = [];
    respond = () => new Promise<Response>(() => {});
    const all = await subscribed({ endpoint: "/auth", batch }, "private-a", "private-b");
    const signals = requests.map(({ init }) => init.signal!);
    expect(signals.map(({ aborted }) => aborted)).toEqual(batch ? [false] : [false, false]);
    end(all);
    expect(signals.map(({ aborted }) => aborted)).toEqual(batch ? [true] : [true, true]);
    all.socket.disconnect();
    expect(vi.getTimerCount()).toBe(0);
  }
});

test("a function may disconnect", () => {
  const fake = new Fake();
  const socket = fake.client({
    auth: () => {
      socket.disconnect();
      return null;
    },
  });
  socket.subscribe("private-a");
  fake.last.connected(UUID);
  expect([socket.state, socket.socketId]).toEqual(["disconnected", undefined]);
});

test("a function may disconnect and connect: connect resolves with the id of the new connection", async () => {
  const fake = new Fake();
  let again: Promise<string> | undefined;
  const socket = fake.client({
    auth: () => {
      if (!again) {
        socket.disconnect();
        again = socket.connect();
      }
      return { auth: "key:signature" };
    },
  });
  const channel = socket.subscribe("private-a");
  fake.last.connected("old");
  expect([socket.state, fake.sockets.length]).toEqual(["connecting", 2]);
  fake.last.connected("new");
  expect(await again).toBe("new");
  await vi.waitFor(() => expect(fake.last.names("socket:subscribe")).toEqual(["private-a"]));
  fake.last.say("socket:subscribed", { channel: "private-a" });
  await channel.subscribed;
});

test("a listener of the signal may use a channel that is lost with the connection", async () => {
  const fake = new Fake();
  const sent: boolean[] = [];
  const socket = fake.client({
    auth: ({ signal }) => {
      signal.addEventListener("abort", () => sent.push(room.trigger("client-x")));
      return new Promise(() => {});
    },
  });
  socket.subscribe("private-a");
  const room = socket.subscribe("room");
  fake.last.connected();
  fake.last.say("socket:subscribed", { channel: "room" });
  fake.last.end(4200);
  expect(sent).toEqual([false]);
});

test("disconnect aborts the signal of a function", async () => {
  let signal: AbortSignal | undefined;
  const { socket } = await subscribed((request) => ((signal = request.signal), new Promise(() => {})), "private-a");
  socket.disconnect();
  expect(signal!.aborted).toBe(true);
});

test("batch: the request for channels that are left at once is aborted", async () => {
  const { socket } = await subscribed({ endpoint: "/auth", batch: true });
  void socket.subscribe("private-a").unsubscribe();
  await vi.advanceTimersByTimeAsync(0);
  expect(requests.map(({ init }) => init.signal!.aborted)).toEqual([true]);
});

test("batch: one channel that is left does not abort the request of the others", async () => {
  let answer: (response: Response) => void;
  respond = () => new Promise((resolve) => (answer = resolve));
  const { channels, subscribes } = await subscribed({ endpoint: "/auth", batch: true }, "private-a", "private-b");
  void channels[0]!.unsubscribe();
  expect(requests[0]!.init.signal!.aborted).toBe(false);
  answer!(Response.json({ "private-a": { auth: "k:a" }, "private-b": { auth: "k:b" } }));
  await vi.advanceTimersByTimeAsync(0);
  expect(subscribes()).toEqual([{ channel: "private-b", auth: "k:b" }]);
});

test("auth_invalid is repeated once, with a new signature", async () => {
  let n = 0;
  const { fake, channels, subscribes } = await subscribed(() => ({ auth: `k:${++n}` }), "private-a");
  const invalid = () => fake.last.say("socket:subscribe.error", { channel: "private-a", data: { error: "no", code: "auth_invalid" } });
  invalid();
  await vi.advanceTimersByTimeAsync(0);
  expect([channels[0]!.state, subscribes().map(({ auth }) => auth)]).toEqual(["subscribing", ["k:1", "k:2"]]);
  fake.last.say("socket:subscribed", { channel: "private-a" });
  await channels[0]!.subscribed;
  // After a success it may be repeated again.
  fake.last.end(4200);
  await vi.advanceTimersByTimeAsync(1);
  fake.last.connected(UUID);
  await vi.advanceTimersByTimeAsync(0);
  invalid();
  await vi.advanceTimersByTimeAsync(0);
  invalid();
  await expect(channels[0]!.subscribed).rejects.toMatchObject({ code: "auth_invalid" });
  await vi.advanceTimersByTimeAsync(100_000);
  expect(n).toBe(4);
});

test("a function refuses with a CorecastError or with nothing, and any other exception is retried", async () => {
  const auth = vi.fn();
  auth.mockRejectedValueOnce(new CorecastError("banned", "no"));
  auth.mockReturnValueOnce(null);
  auth.mockRejectedValueOnce(new TypeError("network"));
  auth.mockReturnValue({ auth: "k:s" });
  const { channels, subscribes } = await subscribed(auth, "private-a", "private-b", "private-c");
  await expect(channels[0]!.subscribed).rejects.toMatchObject({ code: "banned" });
  await expect(channels[1]!.subscribed).rejects.toMatchObject({ code: "auth_refused" });
  await vi.advanceTimersByTimeAsync(1_000);
  expect(subscribes()).toEqual([{ channel: "private-c", auth: "k:s" }]);
});

test("a channel that is left before it was signed is never requested", async () => {
  const answers: ((signature: { auth: string }) => void)[] = [];
  const { channels, subscribes } = await subscribed(() => new Promise((resolve) => answers.push(resolve)), "private-a");
  await channels[0]!.unsubscribe();
  answers[0]!({ auth: "late" });
  await vi.advanceTimersByTimeAsync(0);
  expect(subscribes()).toEqual([]);
});
