// The list of channels, searched by the server.

import { get } from "./api.js";
import { byId, h, show } from "./dom.js";
import { age, bytes, whole } from "./numbers.js";

const LIMIT = 50;
/** Most subscribers, and most members, of one channel that are shown. */
const SHOWN_MAX = 50;
/** Values of a rule that add nothing to delivery. */
const PLAIN = { history: 0, "on-subscribe": "nothing", slow: "disconnect", presence: "off", "client-events": "off" };
let asked = 0;
let [after, searched, shown] = [undefined, 0, 0];

export function start(watch) {
  const form = byId("channels-search");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    load(false, watch);
  });
  // The clear button of a search field causes this event.
  form.elements.text.addEventListener("search", () => load(false, watch));
  form.elements.how.addEventListener("change", () => load(false, watch));
  byId("channels-more").addEventListener("click", () => load(true, watch));
}

export async function load(isMore, watch) {
  const { text, how } = byId("channels-search").elements;
  const mine = (asked += 1);
  if (!isMore) [after, searched, shown] = [undefined, 0, 0];
  const wanted = text.value.trim();
  byId("channels-rows").setAttribute("aria-busy", "true");
  try {
    const page = await get("channels", { [how.value]: wanted, after, limit: LIMIT });
    // A newer search has begun meanwhile.
    if (mine !== asked) return;
    after = page.next ?? undefined;
    searched += page.searched;
    shown += page.channels.length;
    const rows = page.channels.flatMap((entry) => row(entry, watch));
    if (isMore) byId("channels-rows").append(...rows);
    else byId("channels-rows").replaceChildren(...rows);
    const more = after === undefined ? "" : ", and there are more";
    byId("channels-count").textContent = wanted === "" ? `${whole(shown)} shown${more}` : `${whole(shown)} found${after === undefined ? "" : `, ${whole(searched)} searched so far`}`;
    const nothing = wanted === "" ? "No channel has a subscriber now." : after ? "None among those searched so far." : "No channel with a subscriber matches.";
    show(byId("channels-empty"), shown === 0, nothing);
    show(byId("channels-more"), after !== undefined, wanted === "" ? "More" : "Continue the search");
  } catch (error) {
    if (mine === asked) show(byId("channels-empty"), true, `Request failed: ${error.message}.`);
  } finally {
    if (mine === asked) byId("channels-rows").removeAttribute("aria-busy");
  }
}

function row({ channel, subscribers }, watch) {
  const details = h("tr", { class: "details", hidden: true }, h("td", { colspan: 3 }));
  const open = h("button", { type: "button", "aria-expanded": "false", "aria-label": `Details of ${channel}` }, "Details");
  open.addEventListener("click", () => {
    details.hidden = !details.hidden;
    open.setAttribute("aria-expanded", String(!details.hidden));
    if (!details.hidden) tell(channel, details.firstChild);
  });
  const button = h("button", { type: "button", onclick: () => watch(channel), "aria-label": `Watch ${channel}` }, "Watch");
  const line = h(
    "tr",
    {},
    h("td", { "data-label": "Channel" }, h("code", {}, channel)),
    h("td", { "data-label": "Subscribers", class: "number" }, whole(subscribers)),
    h("td", { class: "actions" }, open, button),
  );
  return [line, details];
}

/** Shows what the server knows about a channel. */
async function tell(channel, cell) {
  try {
    const { rule, history, position, members } = await get("channel", { channel });
    const facts = { Rule: told(rule), History: history ? kept(history, position) : null, Members: present(members), Subscribers: await subscribers(channel) };
    const rows = Object.entries(facts).filter(([, fact]) => fact !== null);
    cell.replaceChildren(h("dl", { class: "facts" }, ...rows.flatMap(([name, fact]) => [h("dt", {}, name), h("dd", {}, fact)])));
  } catch (error) {
    cell.textContent = `Request failed: ${error.message}.`;
  }
}

/** Which rule holds, and what it adds to delivery. */
function told({ rule, match, keys }) {
  const hasHistory = keys.some(({ key, value }) => key === "history" && value > 0);
  const added = keys.filter(({ key, value }) => (key.startsWith("history-") ? hasHistory : value !== PLAIN[key]));
  const name = rule === undefined ? "none fits; the defaults of the name hold" : h("span", {}, `${rule}, for `, h("code", {}, match));
  const items = added.map(({ key, value }) => h("li", {}, h("code", {}, `${key} = ${value}`)));
  return h("div", {}, name, items.length > 0 ? h("ul", { class: "chips" }, ...items) : h("p", {}, "delivery only"));
}

/** What a channel keeps, and its position. */
function kept(history, { epoch, offset, complete }) {
  const size = `${whole(history.messages)} message${history.messages === 1 ? "" : "s"}, ${bytes(history.bytes)}`;
  const rest = complete ? "" : "; others were removed to free memory";
  return h("span", {}, `${size}; position ${offset} of epoch `, h("code", {}, epoch), rest);
}

/** The members of a presence channel. */
function present({ count, members }) {
  if (count === 0) return null;
  const items = members.map(({ user_id, connections }) => h("li", {}, h("code", {}, user_id), connections === 1 ? "" : ` ${whole(connections)} connections`));
  return h("div", {}, whole(count), chips(items, items.length > SHOWN_MAX));
}

/** The first subscribers of a channel. A page can be shorter than its limit, so it reads pages until there are enough. */
async function subscribers(channel) {
  let [found, after] = [[], undefined];
  do {
    const page = await get("subscribers", { channel, after, limit: SHOWN_MAX });
    found = found.concat(page.subscribers);
    after = page.next ?? undefined;
  } while (after !== undefined && found.length < SHOWN_MAX);
  const items = found.map(({ socket_id, address, age_s }) => h("li", {}, h("code", {}, socket_id), ` ${address ?? "unknown"}, ${age(age_s)}`));
  return items.length > 0 ? chips(items, items.length > SHOWN_MAX || after !== undefined) : "none now";
}

function chips(items, hasMore) {
  return h("ul", { class: "chips" }, ...items.slice(0, SHOWN_MAX), hasMore && h("li", {}, "and more"));
}
