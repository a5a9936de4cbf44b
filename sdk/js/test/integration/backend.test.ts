import { createServer, Socket } from "node:net";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, onTestFinished, test, vi } from "vitest";
import { type BackendOptions, CorecastBackend, sign } from "../../src/server.js";
import { FORGED, KEY, Server } from "../corecast.js";

const UUID = "1ba1b6cb-0127-48f8-b5a5-9fd79a7c68a6";
let server: Server;
beforeAll(async () => void (server = await Server.start()));
afterAll(() => server?.dispose());

test("signs the vector of the protocol", () => {
  expect(new CorecastBackend({ key: KEY }).sign("1234.1234", "private-foobar")).toEqual({
    auth: "278d425bdf160c739803:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4",
  });
});

test("signs only a socket_id, a private channel and a string", () => {
  for (const id of ["", "1234", "1234.1234:private-a", "1.2.3", UUID + " "]) {
    expect(() => sign("k", "s", id, "private-a")).toThrow("socket_id");
  }
  for (const channel of ["a", "private-a:b", "private-ä", "private-" + "a".repeat(193)]) {
    expect(() => sign("k", "s", UUID, channel)).toThrow("private or presence channel");
  }
  expect(() => sign("k", "s", UUID, "private-a", { id: 1 } as any)).toThrow("channel_data");
  expect(sign("k", "s", UUID, "private-a", "")).toHaveProperty("channel_data", "");
});

test("a request may take any time", async () => {
  const backend = new CorecastBackend({ adminSocket: server.adminSocket, timeout: Infinity });
  expect(await backend.publish("a", "e")).toBe(0);
  await backend.close();
});

test("signs members of presence channels, and users: the vectors of the protocol", () => {
  const backend = new CorecastBackend({ key: KEY });
  const channel_data = '{"user_id":10,"user_info":{"name":"Mr. Channels"}}';
  expect(backend.signPresence("1234.1234", "presence-foobar", { user_id: 10, user_info: { name: "Mr. Channels" } })).toEqual({
    auth: "278d425bdf160c739803:31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80",
    channel_data,
  });
  expect(backend.sign("1234.1234", "presence-foobar", channel_data)).toEqual(
    backend.signPresence("1234.1234", "presence-foobar", { user_id: 10, user_info: { name: "Mr. Channels" } }),
  );
  expect(backend.signPresence(UUID, "presence-a", { user_id: "7" }).channel_data).toBe('{"user_id":"7"}');
  expect(backend.signUser("1234.1234", { id: "12345" })).toEqual({
    auth: "278d425bdf160c739803:4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba",
    user_data: '{"id":"12345"}',
  });
});

test("signs members and users only with an id, for a presence channel and a socket_id", () => {
  const backend = new CorecastBackend({ key: KEY });
  const [member, user] = [{ user_id: "7" }, { id: "7" }];
  for (const id of ["", "1234", "1234.1234:presence-a", "1234.1234::user::{}", "1.2.3", UUID + "\n"]) {
    expect(() => backend.signPresence(id, "presence-a", member)).toThrow("not a socket_id");
    expect(() => backend.signUser(id, user)).toThrow("not a socket_id");
  }
  for (const channel of ["a", "private-a", "presence-a:b", "presence-ä", "presence-a\n", "presence-" + "a".repeat(192), undefined]) {
    expect(() => backend.signPresence(UUID, channel as string, member)).toThrow("presence channel");
  }
  for (const id of ["", "a".repeat(129), "ä".repeat(65), undefined, null, NaN, Infinity, {}, ["7"], true]) {
    expect(() => backend.signPresence(UUID, "presence-a", { user_id: id as string })).toThrow("user_id must be a string of 1 to 128 bytes");
    expect(() => backend.signUser(UUID, { id: id as string })).toThrow("id must be a string of 1 to 128 bytes");
  }
  expect(() => backend.signUser(UUID, { id: 7 as any })).toThrow("id must be");
  for (const none of [null, undefined, "7"] as any[]) {
    expect(() => backend.signPresence(UUID, "presence-a", none)).toThrow("user_id must be");
    expect(() => backend.signUser(UUID, none)).toThrow("id must be");
  }
  expect(() => new CorecastBackend({}).signUser(UUID, user)).toThrow(expect.objectContaining({ code: "no_key" }));
});

test("authorize signs nothing forged, single or in a batch", async () => {
  const backend = new CorecastBackend({ key: KEY });
  const may = (channel: string) => channel === "private-foobar";
  for (const [socket_id, channel] of FORGED) {
    const single = await backend.authorize(new URLSearchParams({ socket_id, channel_name: channel }), may);
    expect([single.status, Object.keys(JSON.parse(single.body))]).toEqual([403, ["error"]]);
    const batch = await backend.authorize(new URLSearchParams({ socket_id, "channel_name[]": channel }), may);
    expect(Object.keys(JSON.parse(batch.body)[channel])).toEqual(["error"]);
  }
});

test("authorize signs a presence channel for the member that the decision names, and no other channel", async () => {
  const backend = new CorecastBackend({ key: KEY });
  const member = { user_id: "7", user_info: { name: "Ann" } };
  const answer = async (channel_name: string, decision: any) => {
    const { status, body } = await backend.authorize(new URLSearchParams({ socket_id: "1.1", channel_name }), () => decision);
    return [status, JSON.parse(body)];
  };
  expect(await answer("presence-a", member)).toEqual([200, backend.signPresence("1.1", "presence-a", member)]);
  expect(await answer("presence-a", true)).toEqual([200, backend.sign("1.1", "presence-a")]);
  expect(await answer("private-a", member)).toEqual([403, { error: "not the name of a presence channel" }]);
  expect(await answer("presence-a", { user_id: "" })).toEqual([403, { error: "user_id must be a string of 1 to 128 bytes" }]);
});

test("a decision that is neither true, nor a string, nor a member refuses", async () => {
  const backend = new CorecastBackend({ key: KEY });
  for (const decision of [undefined, null, 0, 1, {}, []]) {
    const { status } = await backend.authorize(new URLSearchParams("socket_id=1.1&channel_name=private-a"), () => decision as any);
    expect(status).toBe(403);
  }
});

test("authorize answers the forms that the client sends", async () => {
  const backend = new CorecastBackend({ key: KEY });
  const may = (channel: string) => (channel === "private-me" ? '{"id":1}' : channel === "private-a");
  const answer = async (form: string) => {
    const { status, body } = await backend.authorize(new URLSearchParams(form), may);
    return [status, JSON.parse(body)];
  };
  const id = "socket_id=1.1&";
  expect(await answer(id + "channel_name=private-a")).toEqual([200, backend.sign("1.1", "private-a")]);
  expect(await answer(id + "channel_name=private-me")).toEqual([200, backend.sign("1.1", "private-me", '{"id":1}')]);
  expect(await answer(id + "channel_name=private-b")).toEqual([403, { error: "forbidden" }]);
  expect(await answer("channel_name=private-a")).toEqual([403, { error: "not a socket_id" }]);
  expect(await answer(id + "channel_name[]=private-a&channel_name[]=private-b")).toEqual([
    200,
    { "private-a": backend.sign("1.1", "private-a"), "private-b": { error: "forbidden" } },
  ]);
});

test("authorize answers 400 to a form without a channel", async () => {
  const answer = await new CorecastBackend({ key: KEY }).authorize(new URLSearchParams("socket_id=1.1"), () => true);
  expect(answer.status).toBe(400);
});

test("pipelined: each call gets its own reply", async () => {
  const backend = new CorecastBackend({ adminSocket: server.adminSocket });
  const calls = Array.from({ length: 500 }, (_, n) =>
    n % 5 ? backend.publish("a", "x", n) : backend.publish("a", "socket:ping").catch(({ code }) => code),
  );
  expect(await Promise.all(calls)).toEqual(calls.map((_, n) => (n % 5 ? 0 : "reserved_event")));
  await backend.close();
  await expect(backend.publish("a", "x")).rejects.toMatchObject({ code: "closed" });
});

test("a request that the server cannot read fails alone", async () => {
  const backend = new CorecastBackend({ adminSocket: server.adminSocket });
  const half = "\ud83d"; // one half of an emoji
  const calls = Array.from({ length: 1_000 }, (_, n) => backend.publish("a", n === 500 ? half : "x", n).catch(({ code }) => code));
  expect(await Promise.all(calls)).toEqual(calls.map((_, n) => (n === 500 ? "malformed_request" : 0)));
  for (const [channel, event, exclude] of [[half, "x", "1.1"], ["a", half, "1.1"], ["a", "x", half]] as const) {
    const bad = backend.publish(channel, event, 1, { exclude });
    const good = backend.publish("a", "x");
    await expect(bad).rejects.toMatchObject({ code: expect.stringMatching(/^(malformed_request|invalid_channel)$/) });
    expect(await good).toBe(0);
  }
  expect(await backend.publish("a", "x", half)).toBe(0); // data is any JSON
  await backend.close();
});

test("members cannot replace the id or the command", async () => {
  const backend = new CorecastBackend({ adminSocket: server.adminSocket });
  const calls = [backend.request("ping", { id: 7, command: "stats" }), backend.publish("a", "x")];
  expect(await Promise.all(calls)).toEqual([{}, 0]);
  await backend.close();
});

/** A backend, and an admin socket that answers each request with the lines that `answer` returns. */
async function scripted(answer: (request: any) => string[], options: BackendOptions = {}) {
  const directory = mkdtempSync(join(tmpdir(), "corecast-js-"));
  const admin = createServer((socket) => {
    let received = "";
    socket.on("data", (text) => {
      const lines = (received + text).split("\n");
      received = lines.pop()!;
      for (const line of lines) for (const reply of answer(JSON.parse(line))) socket.write(reply + "\n");
    });
  });
  await new Promise<void>((resolve) => admin.listen(join(directory, "admin"), resolve));
  const backend = new CorecastBackend({ ...options, adminSocket: join(directory, "admin") });
  onTestFinished(async () => {
    await backend.close();
    await new Promise((resolve) => admin.close(resolve));
    rmSync(directory, { recursive: true });
  });
  return backend;
}

test.each([
  ["no JSON", () => ["HTTP/1.1 400 Bad Request"]],
  ["no object", () => ["null"]],
  ["an id of null", () => ['{"id":null,"ok":true}']],
  ["an unknown id", () => ['{"id":1000,"ok":true,"subscribers":1}']],
  ["no result", (id: number) => [`{"id":${id}}`]],
  ["an error without a code", (id: number) => [`{"id":${id},"ok":false}`]],
  ["no reply at all", () => []],
])("a reply that cannot be attributed fails its own request only: %s", async (_, bad) => {
  const backend = await scripted(({ id, event }) => (event === "bad" ? bad(id) : [`{"id":${id},"ok":true,"subscribers":${id}}`]));
  const calls = ["good", "bad", "good", "good"].map((event) => backend.publish("a", event).catch(({ code }) => code));
  expect(await Promise.all(calls)).toEqual([1, "malformed_reply", 3, 4]);
});

test("requests for history, members and users are those of the protocol, and resolve with its replies", async () => {
  const requests: unknown[] = [];
  const replies = [
    { subscribers: 3, epoch: "e", offset: 7 },
    { subscribers: 2 },
    { subscribers: 1 },
    { epoch: "e", offset: 7, complete: true, messages: [{ offset: 7, event: "x", data: 1 }], next: "e:7" },
    { complete: true, messages: [] },
    { count: 1, members: [{ user_id: "7", connections: 2 }] },
    { connections: 2 },
    { connections: 0 },
  ];
  const backend = await scripted(({ id, ...request }) => {
    requests.push(request);
    return [JSON.stringify({ id, ok: true, ...replies[requests.length - 1] })];
  });
  const since = { epoch: "e", offset: 5, socket_id: "1.1" };
  expect([
    await backend.publish("a", "x", 1, { dedupe: "order-42", key: "eur", exclude: "1.1" }),
    await backend.publishToUser("7", "x", 1, { dedupe: "order-43" }),
    await backend.publishToUser(["7", "8"], "x"),
    await backend.history("a", { since, limit: 10, reverse: true, after: "e:9" }),
    await backend.history("a"),
    await backend.members("presence-a"),
    await backend.disconnectUser("7", { code: 4001, reason: "banned" }),
    await backend.disconnectUser("8"),
  ]).toEqual([3, 2, 1, replies[3], replies[4], replies[5], 2, 0]);
  expect(requests).toEqual([
    { command: "publish", channel: "a", event: "x", data: 1, dedupe: "order-42", key: "eur", exclude: "1.1" },
    { command: "publish", user: "7", event: "x", data: 1, dedupe: "order-43" },
    { command: "publish", users: ["7", "8"], event: "x" },
    { command: "history", channel: "a", since: { epoch: "e", offset: 5 }, limit: 10, reverse: true, after: "e:9" },
    { command: "history", channel: "a" },
    { command: "members", channel: "presence-a" },
    { command: "disconnect", user: "7", code: 4001, reason: "banned" },
    { command: "disconnect", user: "8" },
  ]);
});

test("a reply to a request that has already failed is ignored", async () => {
  const reply = (id: number) => `{"id":${id},"ok":true,"subscribers":${id}}`;
  const backend = await scripted(({ id }) => (id === 2 ? [reply(1), "null", reply(1), reply(2)] : [reply(id)]));
  const calls = [1, 2, 3].map(() => backend.publish("a", "x").catch(({ code }) => code));
  expect(await Promise.all(calls)).toEqual([1, "malformed_reply", 3]);
});

test("a server that never answers keeps neither close nor the process", async () => {
  const backend = await scripted(() => [], { timeout: 200 });
  const unref = vi.spyOn(Socket.prototype, "unref");
  onTestFinished(() => unref.mockRestore());
  await expect(backend.publish("a", "x")).rejects.toMatchObject({ code: "timeout" });
  expect(unref).toHaveBeenCalledOnce();
  await backend.close();
  await expect(backend.publish("a", "x")).rejects.toMatchObject({ code: "closed" });
});

test("a large reply is searched for its end once, not again with each chunk", async () => {
  const text = "x".repeat(4 << 20);
  const backend = await scripted(({ id }) => [`{"id":${id},"ok":true,"text":"${text}"}`]);
  const split = vi.spyOn(String.prototype, "split");
  onTestFinished(() => split.mockRestore());
  expect((await backend.request("x")).text).toHaveLength(text.length);
  const searched = split.mock.contexts.map((text) => String(text).length).reduce((sum, length) => sum + length);
  expect(searched).toBeLessThan(2 * text.length);
});

test("waits for a server that restarts, in order", async () => {
  const backend = new CorecastBackend({ adminSocket: server.adminSocket, timeout: 20_000 });
  await backend.request("ping");
  await server.stop();
  // The connection ends before the process does, but its end is reported in a later phase of the event loop. A request that is
  // sent before that is lost.
  for (let round = 0; round < 3; round += 1) await new Promise((resolve) => setImmediate(resolve));
  const calls = [1, 2, 3].map((n) => backend.publish("a", "x", n));
  await server.start();
  expect(await Promise.all(calls)).toEqual([0, 0, 0]);
  await backend.close();
});

test("a full queue, a long line and a missing server are errors", async () => {
  const backend = new CorecastBackend({ adminSocket: server.adminSocket + ".none", timeout: 200, queueMax: 1, lineMax: 100 });
  await expect(backend.publish("a", "x", "y".repeat(100))).rejects.toMatchObject({ code: "too_large" });
  const first = backend.publish("a", "x");
  await expect(backend.publish("a", "x")).rejects.toMatchObject({ code: "queue_full" });
  await expect(first).rejects.toMatchObject({ code: "timeout", message: expect.stringContaining("ENOENT") });
  await backend.close();
});

test("a request that was sent but not answered is not sent again", async () => {
  const directory = mkdtempSync(join(tmpdir(), "corecast-js-"));
  const lines: string[] = [];
  const connections: Socket[] = [];
  const admin = createServer((socket) => {
    connections.push(socket);
    socket.on("data", (text) => {
      lines.push(...String(text).trim().split("\n"));
      if (connections.length === 1) socket.destroy();
      else socket.write(lines.slice(-1).map((line) => JSON.stringify({ id: JSON.parse(line).id, ok: true, subscribers: 7 }) + "\n").join(""));
    });
  });
  await new Promise<void>((resolve) => admin.listen(join(directory, "admin"), resolve));
  const backend = new CorecastBackend({ adminSocket: join(directory, "admin") });
  await expect(backend.publish("a", "first")).rejects.toMatchObject({ code: "connection_lost" });
  expect(await backend.publish("a", "second")).toBe(7);
  expect(lines.map((line) => JSON.parse(line).event)).toEqual(["first", "second"]);
  await backend.close();
  await new Promise((resolve) => admin.close(resolve));
  rmSync(directory, { recursive: true });
});
