/** The client. It has no dependencies, and importing it has no side effect. */
export { type Auth, type AuthEndpoint, type AuthFunction, type AuthRequest, type Signal, type Signature } from "./auth.js";
export { type Channel, type ChannelState, type ChannelSystemEvents, type Message } from "./channel.js";
export {
  type ConnectionState,
  Corecast,
  type Debug,
  type Options,
  type SocketEvents,
  type StateChange,
  type WebSocketLike,
} from "./corecast.js";
export { CorecastError } from "./errors.js";
export { type BackOff } from "./retry.js";
