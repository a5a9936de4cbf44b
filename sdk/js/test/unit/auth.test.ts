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

test("public channels are not signed", async () => {
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

test("batch: what comes later is another request", async () => {
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

test.each([401, 403, 404])("%i refuses for good", async (status) => {
  respond = () => new Response("", { status });
  const { channels } = await subscribed("/auth", "private-a");
  await expect(channels[0]!.subscribed).rejects.toMatchObject({ code: "auth_refused" });
});

test.each([
  ["500", () => new Response("", { status: 500 })],
  ["429", () => new Response("", { status: 429 })],
  ["no connection", () => Promise.reject(new TypeError("fetch failed"))],
  ["no JSON", () => new Response("<html>")],
  ["no answer", () => new Promise<Response>(() => {})],
])("%s is tried again", async (_, failure) => {
  respond = failure;
  const { channels, subscribes } = await subscribed("/auth", "private-a");
  const errors: string[] = [];
  channels[0]!.bind("socket:subscribe.error", ({ code }) => errors.push(code));
  respond = () => Response.json({ auth: "key:sig" });
  await vi.advanceTimersByTimeAsync(11_100);
  expect(channels[0]!.state).toBe("subscribing");
  expect(subscribes()).toEqual([{ channel: "private-a", auth: "key:sig" }]);
  expect(requests).toHaveLength(2);
});

test("a function refuses with a CorecastError or with nothing, and anything else is tried again", async () => {
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

test("a channel that is left before it was signed is never asked for", async () => {
  const answers: ((signature: { auth: string }) => void)[] = [];
  const { channels, subscribes } = await subscribed(() => new Promise((resolve) => answers.push(resolve)), "private-a");
  await channels[0]!.unsubscribe();
  answers[0]!({ auth: "late" });
  await vi.advanceTimersByTimeAsync(0);
  expect(subscribes()).toEqual([]);
});
