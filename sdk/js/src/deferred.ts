/** A promise that is settled from outside. An application that does not await it gets no unhandled rejection. */
export interface Deferred<T> {
  _promise: Promise<T>;
  _resolve(value: T): void;
  _reject(error: Error): void;
}

export function deferred<T>(): Deferred<T> {
  const made = {} as Deferred<T>;
  made._promise = new Promise((resolve, reject) => {
    made._resolve = resolve;
    made._reject = reject;
  });
  made._promise.catch(() => {});
  return made;
}
