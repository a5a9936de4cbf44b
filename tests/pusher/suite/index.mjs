// All tests, by what they are about.

import { authorization, jsonp } from "./authorization.mjs";
import { cache, cacheUnderLoad } from "./cache.mjs";
import { channels } from "./channels.mjs";
import { clientEvents } from "./client_events.mjs";
import { connection } from "./connection.mjs";
import { echoPusher, echoReverb } from "./echo.mjs";
import { encrypted } from "./encrypted.mjs";
import { presence } from "./presence.mjs";
import { since8 } from "./since_8.mjs";
import { users } from "./users.mjs";

/** The tests that a runtime can run with pusher-js of this version. */
export function groups(runtime, version = 8) {
  return {
    connection,
    channels,
    authorization: runtime === "page" ? { ...authorization, ...jsonp } : authorization,
    "client events": clientEvents,
    presence,
    "encrypted channels": encrypted,
    "cache channels": runtime === "node" ? { ...cache, ...cacheUnderLoad } : cache,
    users,
    ...(version < 8 ? {} : { "since version 8": since8 }),
    "Echo, pusher": echoPusher,
    "Echo, reverb": echoReverb,
  };
}
