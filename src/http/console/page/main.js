// The page: colours, views, access, and the polling of numbers every second.

import { Refused, begin, door, get } from "./api.js";
import * as busiest from "./busiest.js";
import * as channels from "./channels.js";
import * as connections from "./connections.js";
import * as debug from "./debug.js";
import { byId, show } from "./dom.js";
import * as overview from "./overview.js";

const THEMES = { auto: "Auto", light: "Light", dark: "Dark" };
const THEME = "corecast-console-theme";
const POLL_MS = 1_000;
/** Whether the values that rarely change are known. */
let isKnown = false;

function start() {
  byId("host").textContent = location.host;
  byId("theme").addEventListener("click", () => {
    const names = Object.keys(THEMES);
    const next = names[(names.indexOf(document.documentElement.dataset.theme ?? "auto") + 1) % names.length];
    localStorage.setItem(THEME, next);
    colours(next);
  });
  colours(localStorage.getItem(THEME));
  door.ask = ask;
  door.entered = () => (isKnown = false);
  const link = linkIn(location.hash);
  if (link !== null) {
    // The history keeps no token.
    history.replaceState(null, "", location.pathname + location.search);
    begin(link);
  }
  // Escape must not close the dialog: the page behind it needs a token.
  byId("login").addEventListener("cancel", (event) => event.preventDefault());
  overview.start();
  busiest.start();
  channels.start(watch);
  connections.start();
  debug.start();
  addEventListener("hashchange", go);
  go();
  poll();
}

function colours(theme) {
  const known = Object.hasOwn(THEMES, theme) ? theme : "auto";
  if (known === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = known;
  const button = byId("theme");
  if (button) button.textContent = `◐ ${THEMES[known]}`;
}

const VIEWS = {
  overview: () => {
    overview.draw();
    busiest.load();
  },
  channels: () => channels.load(false, watch),
  connections: () => connections.load(false),
  debug: () => {},
};

/** The token of the link in this text. */
function linkIn(text) {
  return /#token=([0-9a-f]+)/.exec(text)?.[1] ?? null;
}

/** Shows the view that the address names. */
function go() {
  // Another link was opened in this tab.
  if (linkIn(location.hash) !== null) return location.reload();
  const wanted = location.hash.slice(1);
  const name = Object.hasOwn(VIEWS, wanted) ? wanted : "overview";
  for (const view of document.querySelectorAll(".view")) view.hidden = view.id !== name;
  for (const link of document.querySelectorAll(".tabs a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  scrollTo(0, 0);
  VIEWS[name]();
}

function watch(channel) {
  location.hash = "debug";
  debug.watch(channel);
}

/** Polls the numbers while the page is open. Values that rarely change are requested when the server becomes reachable. */
async function poll() {
  for (;;) {
    try {
      if (!isKnown) {
        const info = await get("info", { origin: location.origin });
        isKnown = true;
        document.documentElement.classList.toggle("read-only", info.read_only);
        show(byId("rights"), info.read_only);
        byId("server").dataset.version = `corecast ${info.version}`;
        debug.propose(info.websocket);
      }
      overview.take(await get("stats"));
      status("live", "live");
    } catch (error) {
      isKnown = false;
      status("lost", error instanceof Refused && error.status !== 0 ? error.message : "server not reachable");
      if (!(error instanceof Refused)) console.error(error);
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

function status(state, text) {
  const element = byId("status");
  element.dataset.state = state;
  // Changed only if the text differs, because screen readers announce it.
  if (element.textContent !== text) element.textContent = text;
}

/** Opens the dialog; resolves to what was typed: a link, or a key. */
function ask(wrong) {
  const dialog = byId("login");
  const form = dialog.querySelector("form");
  dialog.querySelector(".wrong").textContent = wrong;
  status("lost", "no access");
  form.elements.key.value = "";
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => {
    form.addEventListener(
      "submit",
      (event) => {
        event.preventDefault();
        const text = form.elements.key.value.trim();
        dialog.close();
        const link = linkIn(text);
        // Characters that a header cannot hold become "?". They cannot be part of the key either.
        resolve(link === null ? { key: text.replace(/[^\x21-\x7e]/g, "?") } : { link });
      },
      { once: true },
    );
  });
}

colours(localStorage.getItem(THEME));
if (document.readyState === "loading") addEventListener("DOMContentLoaded", start);
else start();
