type Handler = ((data: any, message: any) => void) & { _of?: Function };
type AnyHandler = (event: string, data: any, message: any) => void;

/**
 * Handlers by event name. A handler may bind and unbind other handlers: an event goes to the handlers that were bound when it
 * was emitted. An exception in a handler is reported as an uncaught error and does not stop the other handlers.
 */
export class Emitter<Events extends object, Message = undefined> {
  #handlers = new Map<string, readonly Handler[]>();
  #any: readonly AnyHandler[] = [];
  #silent = false;

  /** Calls `handler` for each `event`. */
  bind<Name extends keyof Events & string>(event: Name, handler: (data: Events[Name], message: Message) => void): this {
    this.#handlers.set(event, [...(this.#handlers.get(event) ?? []), callable(handler)]);
    return this;
  }

  /** The same as `bind`. */
  on<Name extends keyof Events & string>(event: Name, handler: (data: Events[Name], message: Message) => void): this {
    return this.bind(event, handler);
  }

  /** Calls `handler` for the next `event` only. */
  once<Name extends keyof Events & string>(event: Name, handler: (data: Events[Name], message: Message) => void): this {
    let called = false;
    const once: Handler = (data, message) => {
      this.unbind(event, once);
      if (!called) handler(data, message);
      called = true;
    };
    once._of = callable(handler);
    return this.bind(event, once);
  }

  /** Calls `handler` for every event, including those that start with `socket:`. */
  bindAll(handler: (event: string, data: any, message: Message) => void): this {
    this.#any = [...this.#any, callable(handler)];
    return this;
  }

  /** Removes one handler of an event, all handlers of an event, or, without arguments, all handlers. */
  unbind<Name extends keyof Events & string>(event?: Name, handler?: (data: Events[Name], message: Message) => void): this {
    if (event === undefined) {
      this.#handlers.clear();
      this.#any = [];
    } else {
      const left = handler
        ? (this.#handlers.get(event) ?? []).filter((bound) => bound !== handler && bound._of !== handler)
        : [];
      this.#handlers.set(event, left);
    }
    return this;
  }

  /** The same as `unbind`. */
  off<Name extends keyof Events & string>(event?: Name, handler?: (data: Events[Name], message: Message) => void): this {
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

  /** @internal No handler is called from now on, including for an event that is being emitted. */
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

function callable<T>(handler: T): T {
  if (typeof handler !== "function") throw new TypeError("the handler must be a function");
  return handler;
}
