/** The file for a script element or importScripts: one global, `Corecast`, which holds the rest. */
import { Corecast } from "./corecast.js";
import { CorecastError } from "./errors.js";

Object.assign(globalThis, { Corecast: Object.assign(Corecast, { CorecastError }) });
