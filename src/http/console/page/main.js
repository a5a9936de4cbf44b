// The page: colours, views, the key, and the polling of numbers every second.

import { Refused, door, get } from "./api.js";
import * as busiest from "./busiest.js";
import * as channels from "./channels.js";
import * as connections from "./connections.js";
import * as debug from "./debug.js";
import { byId } from "./dom.js";
import * as overview from "./overview.js";

const THEMES = { auto: "Auto", light: "Light", dark: "Dark" };
const THEME = "corecast-console-theme";
const POLL_MS = 1_000;

function start() {
  byId("host").textContent = location.host;
  byId("theme").addEventListener("click", () => {
    const names = Object.keys(THEMES);
    const next = names[(names.indexOf(document.documentElement.dataset.theme ?? "auto") + 1) % names.length];
    localStorage.setItem(THEME, next);
    colours(next);
  });
  colours(localStorage.getItem(THEME));
  door.ask = askForKey;
  // Escape must not close the dialog: the page behind it needs the key.
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

/** Shows the view that the address names. */
function go() {
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
  let isKnown = false;
  for (;;) {
    try {
      if (!isKnown) {
        const info = await get("info", { origin: location.origin });
        byId("server").dataset.version = `corecast ${info.version}`;
        debug.propose(info.websocket);
      }
      overview.take(await get("stats"));
      isKnown = true;
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

/** Opens the dialog; resolves to the text that was typed. */
function askForKey(wrong) {
  const dialog = byId("login");
  const form = dialog.querySelector("form");
  dialog.querySelector(".wrong").textContent = wrong;
  status("lost", "key needed");
  form.elements.key.value = "";
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => {
    form.addEventListener(
      "submit",
      (event) => {
        event.preventDefault();
        // Characters that a header cannot hold become "?". They cannot be part of the key either.
        const key = form.elements.key.value.trim().replace(/[^\x21-\x7e]/g, "?");
        dialog.close();
        resolve(key);
      },
      { once: true },
    );
  });
}

colours(localStorage.getItem(THEME));
if (document.readyState === "loading") addEventListener("DOMContentLoaded", start);
else start();
