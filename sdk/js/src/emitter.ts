type Handler = (data: any, message: any) => void;
type AnyHandler = (event: string, data: any, message: any) => void;

/**
 * Handlers by event name. A handler may bind and unbind while it is called: what is being emitted goes to the handlers bound
 * before. One that throws is reported like any uncaught error and does not keep the others from being called.
 */
export class Emitter<Events extends object, Message = undefined> {
  #handlers = new Map<string, readonly Handler[]>();
  #any: readonly AnyHandler[] = [];
  #silent = false;

  /** Calls `handler` for every `event`. */
  bind<Name extends keyof Events & string>(
    event: Name,
    handler: (data: Events[Name], message: Message) => void,
  ): this {
    this.#handlers.set(event, [...(this.#handlers.get(event) ?? []), handler]);
    return this;
  }

  /** The same as `bind`. */
  on<Name extends keyof Events & string>(
    event: Name,
    handler: (data: Events[Name], message: Message) => void,
  ): this {
    return this.bind(event, handler);
  }

  /** Calls `handler` for every event, `socket:` ones included. */
  bindAll(handler: (event: string, data: any, message: Message) => void): this {
    this.#any = [...this.#any, handler];
    return this;
  }

  /** Removes one handler of an event, all handlers of an event, or, without arguments, every handler there is. */
  unbind<Name extends keyof Events & string>(
    event?: Name,
    handler?: (data: Events[Name], message: Message) => void,
  ): this {
    if (event === undefined) {
      this.#handlers.clear();
      this.#any = [];
    } else {
      const left = handler ? (this.#handlers.get(event) ?? []).filter((bound) => bound !== handler) : [];
      if (left.length > 0) this.#handlers.set(event, left);
      else this.#handlers.delete(event);
    }
    return this;
  }

  /** The same as `unbind`. */
  off<Name extends keyof Events & string>(
    event?: Name,
    handler?: (data: Events[Name], message: Message) => void,
  ): this {
    return this.unbind(event, handler);
  }

  /** Removes one handler given to `bindAll`, or all of them. */
  unbindAll(handler?: AnyHandler): this {
    this.#any = handler ? this.#any.filter((bound) => bound !== handler) : [];
    return this;
  }

  /** @internal */
  _emit(event: string, data?: unknown, message?: Message): void {
    for (const handler of this.#handlers.get(event) ?? []) this.#call(() => handler(data, message));
    for (const handler of this.#any) this.#call(() => handler(event, data, message));
  }

  /** @internal No handler is called any more, not even for what is being emitted. */
  _silence(): void {
    this.#silent = true;
  }

  #call(handler: () => void): void {
    if (this.#silent) return;
    try {
      handler();
    } catch (error) {
      setTimeout(() => {
        throw error;
      });
    }
  }
}
