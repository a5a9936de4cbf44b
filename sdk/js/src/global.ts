/** The browser file: sets one global, `Corecast`. */
import { Corecast } from "./corecast.js";

Object.assign(globalThis, { Corecast });
