type Handler = ((...event: any[]) => void) & { _of?: Function };
type AnyHandler = (event: string, data: any, message: any) => void;

/**
 * Handlers by event name. A handler may bind and unbind other handlers: an event goes to the handlers that were bound when it
 * was emitted. An exception in a handler is reported as an uncaught error and does not stop the other handlers.
 */
export class Emitter<Events extends object, Message = undefined> {
  /** Those of every event are below `undefined`. */
  #handlers = new Map<string | undefined, readonly Handler[]>();
  #silent = false;

  /** Calls `handler` for each `event`. */
  bind<Name extends keyof Events & string>(event: Name, handler: (data: Events[Name], message: Message) => void): this {
    return this.#add(event, handler);
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
    return this.#add(undefined, handler);
  }

  /** Removes one handler of an event, all handlers of an event, or, without arguments, all handlers. */
  unbind<Name extends keyof Events & string>(event?: Name, handler?: (data: Events[Name], message: Message) => void): this {
    if (event !== undefined) return this.#remove(event, handler);
    this.#handlers.clear();
    return this;
  }

  /** The same as `unbind`. */
  off<Name extends keyof Events & string>(event?: Name, handler?: (data: Events[Name], message: Message) => void): this {
    return this.unbind(event, handler);
  }

  /** Removes one handler given to `bindAll`, or all of them. */
  unbindAll(handler?: AnyHandler): this {
    return this.#remove(undefined, handler);
  }

  /** @internal */
  _emit(event: string, data?: unknown, message?: Message | undefined): void {
    this.#call(event, data, message);
    this.#call(undefined, event, data, message);
  }

  /** @internal No handler is called from now on, including for an event that is being emitted. */
  _silence(): void {
    this.#silent = true;
  }

  #of(event: string | undefined): readonly Handler[] {
    return this.#handlers.get(event) ?? [];
  }

  #add(event: string | undefined, handler: Handler): this {
    return this.#set(event, [...this.#of(event), callable(handler)]);
  }

  #set(event: string | undefined, handlers: readonly Handler[]): this {
    this.#handlers.set(event, handlers);
    return this;
  }

  /** Removes one handler, or all of them. */
  #remove(event: string | undefined, handler: Function | undefined): this {
    return this.#set(event, this.#of(event).filter((bound) => handler && bound !== handler && bound._of !== handler));
  }

  #call(event: string | undefined, ...told: unknown[]): void {
    for (const handler of this.#of(event)) this.#silent || call(handler, ...told);
  }
}

/** Calls a function of the application. An exception is reported as an uncaught error. */
export function call(handler: Function, ...told: unknown[]): void {
  try {
    handler(...told);
  } catch (error) {
    setTimeout(() => {
      throw error;
    });
  }
}

function callable<T>(handler: T): T {
  if (typeof handler !== "function") throw new TypeError("the handler must be a function");
  return handler;
}
