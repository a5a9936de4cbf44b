/** The client. It has no dependencies and does nothing when imported. */
export { type Auth, type AuthEndpoint, type AuthFunction, type AuthRequest, type Signature } from "./auth.js";
export { type Channel, type ChannelState, type ChannelSystemEvents, type Message } from "./channel.js";
export {
  type ConnectionState,
  Corecast,
  type Options,
  type SocketEvents,
  type StateChange,
  type WebSocketLike,
} from "./corecast.js";
export { CorecastError } from "./errors.js";
export { type BackOff } from "./retry.js";
