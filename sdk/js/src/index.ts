/** The client. It has no dependencies, and importing it has no side effect. */
export {
  type Auth,
  type AuthEndpoint,
  type AuthFunction,
  type AuthRequest,
  type Signal,
  type Signature,
  type UserAuth,
  type UserAuthFunction,
  type UserSignature,
} from "./auth.js";
export {
  type Channel,
  type ChannelState,
  type ChannelSystemEvents,
  type Member,
  type Message,
  type Position,
  type Presence,
} from "./channel.js";
export { Corecast } from "./corecast.js";
export { CorecastError } from "./errors.js";
export {
  type ConnectionState,
  type Debug,
  type Options,
  type SocketEvents,
  type StateChange,
  type SubscribeOptions,
  type WebSocketLike,
} from "./options.js";
export { type BackOff } from "./retry.js";
