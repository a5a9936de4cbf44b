// The list of connections: their channels, and closing them.

import { get, post } from "./api.js";
import { byId, h, show } from "./dom.js";
import { age, bytes, whole } from "./numbers.js";

const LIMIT = 50;
/** Most channels of one connection that are shown. */
const CHANNELS_MAX = 200;
let asked = 0;
let [after, searched, shown] = [undefined, 0, 0];

export function start() {
  const form = byId("connections-search");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    load(false);
  });
  form.elements.text.addEventListener("search", () => load(false));
  byId("connections-more").addEventListener("click", () => load(true));
}

export async function load(isMore) {
  const mine = (asked += 1);
  if (!isMore) [after, searched, shown] = [undefined, 0, 0];
  const wanted = byId("connections-search").elements.text.value.trim();
  byId("connections-rows").setAttribute("aria-busy", "true");
  try {
    const page = await get("connections", { contains: wanted, after, limit: LIMIT });
    if (mine !== asked) return;
    after = page.next ?? undefined;
    searched += page.searched;
    shown += page.connections.length;
    const rows = page.connections.flatMap(row);
    if (isMore) byId("connections-rows").append(...rows);
    else byId("connections-rows").replaceChildren(...rows);
    const more = after === undefined ? "" : ", and there are more";
    byId("connections-count").textContent = wanted === "" ? `${whole(shown)} shown${more}` : `${whole(shown)} found${after === undefined ? "" : `, ${whole(searched)} searched so far`}`;
    const nothing = wanted === "" ? "No connections." : after ? "None among those searched so far." : "No connection matches.";
    show(byId("connections-empty"), shown === 0, nothing);
    show(byId("connections-more"), after !== undefined, wanted === "" ? "More" : "Continue the search");
  } catch (error) {
    if (mine === asked) show(byId("connections-empty"), true, `Request failed: ${error.message}.`);
  } finally {
    if (mine === asked) byId("connections-rows").removeAttribute("aria-busy");
  }
}

function row(connection) {
  const { socket_id, address, dialect, shard, age_s, subscriptions, outbox_bytes } = connection;
  const details = h("tr", { class: "details", hidden: true }, h("td", { colspan: 8 }));
  const open = h("button", { type: "button", "aria-expanded": "false", "aria-label": `Details of ${socket_id}` }, "Details");
  open.addEventListener("click", () => {
    details.hidden = !details.hidden;
    open.setAttribute("aria-expanded", String(!details.hidden));
    if (!details.hidden) tell(socket_id, details.firstChild);
  });
  const end = h("button", { type: "button", class: "danger writes", "aria-label": `Disconnect ${socket_id}` }, "Disconnect");
  const line = h(
    "tr",
    {},
    h("td", { "data-label": "Socket" }, h("code", {}, socket_id)),
    h("td", { "data-label": "Address" }, address ?? "unknown"),
    h("td", { "data-label": "Dialect" }, dialect),
    h("td", { "data-label": "Shard", class: "number" }, String(shard)),
    h("td", { "data-label": "Age", class: "number" }, age(age_s)),
    h("td", { "data-label": "Channels", class: "number" }, whole(subscriptions)),
    h("td", { "data-label": "Waiting", class: "number" }, bytes(outbox_bytes)),
    h("td", { class: "actions" }, open, end),
  );
  end.addEventListener("click", async () => {
    if (!(await disconnect(connection))) return;
    line.classList.add("gone");
    line.querySelectorAll("button").forEach((button) => (button.disabled = true));
    details.hidden = true;
  });
  return [line, details];
}

async function tell(socketId, cell) {
  try {
    const { channels } = await get(`connections/${encodeURIComponent(socketId)}`);
    const names = channels.slice(0, CHANNELS_MAX).map((name) => h("li", {}, h("code", {}, name)));
    const rest = channels.length - names.length;
    const list = h("ul", { class: "chips" }, ...names, rest > 0 && h("li", {}, `and ${whole(rest)} more`));
    cell.replaceChildren(channels.length > 0 ? list : "It has no subscriptions.");
  } catch (error) {
    cell.textContent = error.status === 404 ? "It has disconnected." : `Request failed: ${error.message}.`;
  }
}

/** Asks for confirmation first. Resolves to whether the connection was closed. */
function disconnect({ socket_id, address }) {
  const dialog = byId("ending");
  const form = dialog.querySelector("form");
  byId("ending-socket").textContent = socket_id;
  byId("ending-address").textContent = address ?? "";
  const wrong = dialog.querySelector(".wrong");
  wrong.textContent = "";
  dialog.showModal();
  return new Promise((resolve) => {
    const controller = new AbortController();
    const { signal } = controller;
    const done = (isDone) => {
      controller.abort();
      dialog.close();
      resolve(isDone);
    };
    form.querySelector("[value=cancel]").addEventListener("click", () => done(false), { signal });
    dialog.addEventListener("cancel", () => done(false), { signal });
    form.addEventListener(
      "submit",
      async (event) => {
        event.preventDefault();
        const { code, reason } = form.elements;
        try {
          await post("disconnect", { socket_id, code: Number(code.value), reason: reason.value });
          done(true);
        } catch (error) {
          if (error.status === 404) done(true);
          else wrong.textContent = error.message;
        }
      },
      { signal },
    );
  });
}
