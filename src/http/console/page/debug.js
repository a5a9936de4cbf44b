// The debug panel: a WebSocket client in this page, and every frame that it sends and receives.

import { post } from "./api.js";
import { byId, h, show } from "./dom.js";
import { whole } from "./numbers.js";

/** Most frames that are kept; the oldest are dropped. */
const FRAMES_MAX = 500;
/** Characters of a frame that are shown before the user asks for all of it. */
const TEXT_MAX = 2_000;
/** Milliseconds between updates of the page, however many frames arrive. */
const DRAW_MS = 100;

let socket = null;
let socketId = null;
let pinging = 0;
let pings = 0;
let wasOpen = false;
let mayConnect = true;
let isPaused = false;
let [counted, forgotten] = [0, 0];
let waiting = [];
let drawing = 0;
/** State of each channel by name: asked or subscribed. */
const channels = new Map();

export function start() {
  const connect = byId("debug-connect");
  connect.addEventListener("submit", (event) => {
    event.preventDefault();
    open(connect.elements.url.value.trim());
  });
  byId("debug-close").addEventListener("click", () => socket?.close(1000));
  byId("debug-subscribe").addEventListener("submit", (event) => {
    event.preventDefault();
    subscribe(event.target.elements.channel.value.trim());
  });
  byId("debug-publish").addEventListener("submit", publish);
  byId("debug-send").addEventListener("submit", (event) => {
    event.preventDefault();
    send(event.target.elements.text.value);
  });
  byId("log-pause").addEventListener("click", pause);
  byId("log-clear").addEventListener("click", clear);
  byId("log-heartbeats").addEventListener("change", ({ target }) => byId("log").classList.toggle("with-heartbeats", target.checked));
  state();
}

/** Takes the server's description of its WebSocket listener. */
export function propose({ port, is_tls, path, may_connect }) {
  const { url } = byId("debug-connect").elements;
  const { hostname } = location;
  if (url.value === "") url.value = `${is_tls ? "wss" : "ws"}://${hostname}:${port}${path}`;
  mayConnect = may_connect;
  const why = `The server lets only some pages connect, and this is not one of them: it will answer 403 unless it is started with --allow-origin ${location.origin}.`;
  show(byId("debug-notice"), !may_connect, why);
}

/** Subscribes to a channel, and connects first if necessary. */
export function watch(channel) {
  byId("debug-subscribe").elements.channel.value = channel;
  byId("debug-publish").elements.channel.value = channel;
  if (socketId !== null) return void subscribe(channel);
  channels.set(channel, "wanted");
  if (socket === null) open(byId("debug-connect").elements.url.value.trim());
}

function open(url) {
  socket?.close(1000);
  let opened;
  try {
    opened = new WebSocket(url);
  } catch (error) {
    return note(`This is not a valid URL: ${error.message}`, "error");
  }
  socket = opened;
  // Subscriptions of the previous connection are restored on this one.
  [wasOpen, socketId] = [false, null];
  clearInterval(pinging);
  note(`connecting to ${url}`);
  opened.addEventListener("open", () => {
    if (opened !== socket) return;
    wasOpen = true;
    note("connected");
    state();
  });
  opened.addEventListener("message", ({ data }) => opened === socket && received(data));
  opened.addEventListener("close", (event) => closed(opened, event));
  state();
}

function closed(which, { code, reason }) {
  if (which !== socket) return;
  socket = socketId = null;
  clearInterval(pinging);
  channels.clear();
  if (wasOpen) note(`closed: ${code}${reason ? ` ${reason}` : ""}`, "error");
  else note(`no connection. ${hint()}`, "error");
  state();
}

/** A likely cause of a failed connection: browsers do not tell a page why. */
function hint() {
  const url = byId("debug-connect").elements.url.value;
  if (!mayConnect) return `The server's --allow-origin does not list ${location.origin}.`;
  if (location.protocol === "https:" && url.startsWith("ws:")) return "An https:// page may connect only to wss:// URLs.";
  if (url.startsWith("wss:")) return "Is the address right, and does the browser trust the certificate?";
  return "Is the address right, and does the server speak plain ws:// there? The browser's own console may say more.";
}

function received(text) {
  log("in", text);
  let message;
  try {
    message = JSON.parse(text);
  } catch {
    return;
  }
  const { event, channel, data } = message ?? {};
  if (event === "socket:connected" && socketId === null) {
    socketId = data.socket_id;
    // Pings show a server that sends no pings of its own that this client is alive.
    pinging = setInterval(ping, data.heart.interval * 1000);
    const wanted = [...channels.keys()];
    channels.clear();
    wanted.forEach(subscribe);
  } else if (event === "socket:ping") send('{"event":"socket:pong"}');
  else if (event === "socket:subscribed") channels.set(channel, "subscribed");
  else if (event === "socket:subscribe.error" && data?.code !== "already_subscribed") channels.delete(channel);
  else if (event === "socket:unsubscribed") channels.delete(channel);
  else return;
  state();
}

async function subscribe(channel) {
  if (channel === "" || socketId === null) return;
  const data = { channel };
  const signer = socketId;
  const maySign = !document.documentElement.classList.contains("read-only");
  if (/^(private|presence)-/.test(channel) && maySign && byId("debug-subscribe").elements.sign.checked) {
    if (channel.startsWith("presence-")) data.channel_data = '{"user_id":"console"}';
    try {
      data.auth = (await post("sign", { socket_id: signer, ...data })).auth;
    } catch (error) {
      return note(`not signed: ${error.message}`, "error");
    }
    if (signer !== socketId) return;
  }
  if (channels.get(channel) !== "subscribed") channels.set(channel, "asked");
  send(JSON.stringify({ event: "socket:subscribe", data }));
  const publish = byId("debug-publish").elements.channel;
  if (publish.value === "") publish.value = channel;
  state();
}

async function publish(event) {
  event.preventDefault();
  const { channel, event: name, data, exclude } = event.target.elements;
  const said = byId("debug-published");
  const text = data.value.trim();
  try {
    if (text !== "") JSON.parse(text);
  } catch (error) {
    said.textContent = `The data is not valid JSON: ${error.message}`;
    return;
  }
  // Sent as written, so that numbers do not change.
  const members = [`"channel":${JSON.stringify(channel.value.trim())}`, `"event":${JSON.stringify(name.value)}`];
  if (text !== "") members.push(`"data":${text}`);
  if (exclude.checked && socketId !== null) members.push(`"exclude":${JSON.stringify(socketId)}`);
  try {
    const { subscribers } = await post("publish", `{${members.join(",")}}`);
    said.textContent = `to ${whole(subscribers)} subscriber${subscribers === 1 ? "" : "s"}`;
  } catch (error) {
    said.textContent = error.message;
  }
}

function ping() {
  pings += 1;
  send(JSON.stringify({ event: "socket:ping", data: { id: pings } }));
}

function send(text) {
  if (socket?.readyState !== WebSocket.OPEN) return note("not sent: not connected", "error");
  socket.send(text);
  log("out", text);
}

/** Enables the controls that apply in the current state. */
function state() {
  const isOpen = socketId !== null;
  const [connect, close] = [byId("debug-connect").querySelector("[type=submit]"), byId("debug-close")];
  connect.textContent = socket === null ? "Connect" : "Reconnect";
  close.disabled = socket === null;
  byId("debug-subscribe").querySelector("[type=submit]").disabled = !isOpen;
  byId("debug-send").querySelector("[type=submit]").disabled = !wasOpen || socket === null;
  byId("debug-state").textContent = isOpen ? `connected as ${socketId}` : socket === null ? "not connected" : "connecting";
  const chip = ([name, how]) => {
    const leave = () => send(JSON.stringify({ event: "socket:unsubscribe", data: { channel: name } }));
    return h("li", { "data-state": how }, h("code", {}, name), h("button", { type: "button", onclick: leave, "aria-label": `Unsubscribe from ${name}`, disabled: how !== "subscribed" }, "×"));
  };
  byId("debug-channels").replaceChildren(...[...channels].map(chip));
}

function note(text, kind = "note") {
  log(kind, text);
}

/** Keeps a frame. It is drawn a little later, together with frames that arrive meanwhile. */
function log(kind, text) {
  counted += 1;
  waiting.push({ kind, text, time: new Date() });
  if (waiting.length > FRAMES_MAX) {
    waiting.shift();
    forgotten += 1;
  }
  if (drawing === 0) drawing = setTimeout(draw, DRAW_MS);
}

function draw() {
  drawing = 0;
  const list = byId("log");
  if (!isPaused) {
    const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    list.append(...waiting.map(row));
    waiting = [];
    while (list.children.length > FRAMES_MAX) {
      list.firstChild.remove();
      forgotten += 1;
    }
    // The user has scrolled back to read.
    if (isAtEnd) list.scrollTop = list.scrollHeight;
  }
  const held = isPaused && waiting.length > 0 ? `, ${whole(waiting.length)} waiting` : "";
  byId("log-count").textContent = counted === 0 ? "" : `${whole(counted)}${held}${forgotten > 0 ? `, ${whole(forgotten)} older frames dropped` : ""}`;
  show(byId("log-empty"), list.children.length === 0);
}

const MARKS = { in: "←", out: "→", note: "·", error: "!" };
const SAID = { in: "received", out: "sent", note: "note", error: "problem" };

function row({ kind, text, time }) {
  const isHeartbeat = (kind === "in" || kind === "out") && /"event":"socket:p[io]ng"/.test(text.slice(0, 100));
  const clock = `${time.toLocaleTimeString([], { hour12: false })}.${String(time.getMilliseconds()).padStart(3, "0")}`;
  const code = h("code", {}, text.slice(0, TEXT_MAX));
  const rest = text.length - TEXT_MAX;
  const more = rest > 0 && h("button", { type: "button", class: "quiet", onclick: ({ target }) => (code.append(text.slice(TEXT_MAX)), target.remove()) }, `… ${whole(rest)} more characters`);
  return h("li", { "data-kind": kind, class: isHeartbeat && "heartbeat" }, h("time", {}, clock), h("span", { class: "mark", title: SAID[kind] }, h("span", { "aria-hidden": "true" }, MARKS[kind]), h("span", { class: "hidden" }, SAID[kind])), h("div", {}, code, more));
}

function pause() {
  isPaused = !isPaused;
  const button = byId("log-pause");
  button.setAttribute("aria-pressed", String(isPaused));
  button.textContent = isPaused ? "Resume" : "Pause";
  draw();
}

function clear() {
  waiting = [];
  [counted, forgotten] = [0, 0];
  byId("log").replaceChildren();
  draw();
}
