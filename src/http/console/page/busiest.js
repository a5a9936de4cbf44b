// The busiest channels and addresses: polled only while the overview is visible.

import { get } from "./api.js";
import { byId, h } from "./dom.js";
import { messageRates, short, whole } from "./numbers.js";

const LIMIT = 10;
const POLL_MS = 5_000;
let by = "subscribers";
let asked = 0;
let [before, timer] = [null, null];

export function start() {
  const buttons = [...byId("busiest-by").querySelectorAll("button")];
  const choose = (chosen) => {
    by = chosen.dataset.by;
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(button === chosen)));
    load();
  };
  buttons.forEach((button) => {
    button.setAttribute("aria-pressed", String(button.dataset.by === by));
    button.addEventListener("click", () => choose(button));
  });
  document.addEventListener("visibilitychange", load);
}

/** Polls now, and again while the overview is visible. Showing the overview calls this again. */
export async function load() {
  clearTimeout(timer);
  if (document.hidden || byId("overview").hidden) return;
  const mine = (asked += 1);
  try {
    const answer = await get("busiest", { by, limit: LIMIT });
    if (mine === asked) take(answer);
  } catch (error) {
    if (mine === asked) fail(error);
  } finally {
    if (mine === asked) timer = setTimeout(load, POLL_MS);
  }
}

function take(answer) {
  // A sample that is old, or from another process, gives no current rate.
  const passed = before ? answer.at_ms - before.at_ms : 0;
  const rates = messageRates(passed > 0 && passed < 4 * POLL_MS ? before : null, answer);
  before = answer;
  const channels = answer.channels.map(({ channel, subscribers }, n) => [channel, whole(subscribers), short(rates[n])]);
  fill("busiest-channels", ["Channel", "Subscribers", "Messages/s"], channels, "No channel has a subscriber now.");
  const addresses = answer.addresses.map(({ address, connections }) => [address, whole(connections)]);
  fill("busiest-addresses", ["Address", "Connections"], addresses, "No address with counted connections. Those of this machine are counted only if their number is limited.");
}

function fail(error) {
  const why = `Request failed: ${error.message}.`;
  fill("busiest-channels", ["Channel", "Subscribers", "Messages/s"], [], why);
  fill("busiest-addresses", ["Address", "Connections"], [], why);
}

function fill(id, head, rows, nothing) {
  const row = ([name, ...numbers]) => h("tr", {}, h("th", { scope: "row" }, h("code", {}, name)), ...numbers.map((text) => h("td", { class: "number" }, text)));
  const empty = h("tr", {}, h("td", { colspan: head.length, class: "empty" }, nothing));
  byId(id).replaceChildren(
    h("thead", {}, h("tr", {}, ...head.map((text, n) => h("th", { class: n > 0 && "number" }, text)))),
    h("tbody", {}, ...(rows.length > 0 ? rows.map(row) : [empty])),
  );
}
