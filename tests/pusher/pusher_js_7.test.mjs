import Pusher from "pusher-js-7";
import { matrix } from "./matrix.mjs";

matrix({}, { Pusher, version: 7 });
