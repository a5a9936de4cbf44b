// An application's backend, with the pusher library of Node: it authorizes channels, authenticates users and publishes for the
// tests, and serves the page that runs them in a browser.
//
// POST /auth, GET /auth (JSONP)   authorizes a channel, as the fields of the request say (see `authorize`)
// POST /user                      authenticates the user in the field `user`
// POST /do/NAME                   calls one of `actions` with the arguments in the body
// GET /FILE                       a file of the directory of this script

import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { dirname, extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import Pusher from "pusher";
import { KEYS } from "./server.mjs";

const home = dirname(fileURLToPath(import.meta.url));
// Pages of one backend use others, too.
const ANY_ORIGIN = { "access-control-allow-origin": "*", "access-control-allow-headers": "*" };
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript" };

/** Starts the backend of a server. `report` is called with what a page says. */
export async function backend(server, report = () => {}) {
  const [host, port] = server.http.split(":");
  const [library, rotated] = KEYS.map(
    (pair) => new Pusher({ ...pair, appId: "1", host, port, useTLS: false, encryptionMasterKeyBase64: Buffer.alloc(32, pair.key).toString("base64") }),
  );
  const actions = actionsOf(server, library, report);
  const http = createServer(async (request, response) => {
    const url = new URL(request.url, "http://backend");
    const answer = await route(request, url, { library, rotated, actions }).catch((error) => text(500, `${error.message}: ${error.status} ${error.body}`));
    response.writeHead(answer.status, { "content-type": answer.type, "cache-control": "no-store", ...ANY_ORIGIN }).end(answer.body);
  });
  http.listen(0, "127.0.0.1");
  await once(http, "listening");
  return { url: `http://127.0.0.1:${http.address().port}`, close: () => (http.close(), http.closeAllConnections()) };
}

async function route(request, url, { library, rotated, actions }) {
  if (request.method === "OPTIONS") return text(200, "");
  const body = await bodyOf(request);
  const [, first, second] = url.pathname.split("/");
  if (first === "auth") {
    const fields = request.method === "POST" ? new URLSearchParams(body) : url.searchParams;
    const answer = authorize(fields, request.headers, fields.has("rotated") ? rotated : library);
    const callback = url.searchParams.get("callback");
    return callback ? { ...answer, type: "text/javascript", body: `${callback}(${answer.body});` } : answer;
  }
  if (first === "user") return authenticate(new URLSearchParams(body), library);
  if (first === "do") return json((await actions[second](...JSON.parse(body))) ?? null);
  return file(url.pathname);
}

/**
 * Authorizes `channel_name` for `socket_id`. Further fields: `rotated` signs with the second key pair, `forged` with neither,
 * `user_id` and `user_info` (JSON) name the member. A name with "-token-" needs the header X-Token; one with "-refused-" is
 * refused here.
 */
function authorize(fields, headers, library) {
  const [socket, channel] = [fields.get("socket_id"), fields.get("channel_name")];
  if (channel.includes("-refused-")) return text(403, "refused");
  if (channel.includes("-token-") && headers["x-token"] !== "open-sesame") return text(403, "no token");
  const member = channel.startsWith("presence-") && fields.has("user_id") ? memberOf(fields) : undefined;
  const answer = library.authorizeChannel(socket, channel, member);
  if (fields.has("forged")) answer.auth = library.authorizeChannel(socket, `${channel}-other`, member).auth;
  return json(answer);
}

function memberOf(fields) {
  const member = { user_id: fields.get("user_id") };
  if (fields.has("user_info")) member.user_info = JSON.parse(fields.get("user_info"));
  return member;
}

function authenticate(fields, library) {
  if (!fields.has("user")) return text(403, "not logged in");
  return json(library.authenticateUser(fields.get("socket_id"), JSON.parse(fields.get("user"))));
}

/** What tests, also in a browser, ask for. */
function actionsOf(server, library, report) {
  const called = async (call) => (await call).json();
  return {
    trigger: (...args) => called(library.trigger(...args)),
    batch: (...args) => called(library.triggerBatch(...args)),
    toUser: (...args) => called(library.sendToUser(...args)),
    terminate: (...args) => called(library.terminateUserConnections(...args)),
    get: (path, params) => called(library.get({ path, params })),
    signChannel: (socket, channel, channelData) => sign(library, channelData === undefined ? `${socket}:${channel}` : `${socket}:${channel}:${channelData}`),
    signUser: (socket, userData) => sign(library, `${socket}::user::${userData}`),
    admin: (request) => server.ask(request),
    publishNumbers: (channel, from, to) => server.ask(...Array.from({ length: to - from }, (_, n) => ({ command: "publish", channel, event: "n", data: from + n }))),
    report,
  };
}

/** Signs what the library would refuse to sign. */
function sign(library, subject) {
  const { token } = library.config;
  return `${token.key}:${token.sign(subject)}`;
}

async function file(path) {
  const name = join(home, normalize(path));
  const body = await readFile(name).catch(() => null);
  return body === null ? text(404, `no file ${path}`) : { status: 200, type: TYPES[extname(name)] ?? "application/octet-stream", body };
}

async function bodyOf(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

function json(value) {
  return { status: 200, type: "application/json", body: JSON.stringify(value) };
}

function text(status, body) {
  return { status, type: "text/plain", body };
}
