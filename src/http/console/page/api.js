// The server's JSON interface. The key, if one is needed, is kept until the tab is closed.

const KEY = "corecast-console-key";
let asking = null;

/** A refusal by the server, or status 0 if the server cannot be reached. */
export class Refused extends Error {
  constructor(status, code, text) {
    super(text);
    this.status = status;
    this.code = code;
  }
}

/** Asks the user for the key; set by the page. Takes the error of the last key, and resolves to a new key. */
export const door = { ask: async () => "" };

export const get = (path, query = {}) => call(path, query);
export const post = (path, body) => call(path, {}, body);

async function call(path, query, body) {
  for (;;) {
    const key = sessionStorage.getItem(KEY);
    try {
      return await request(path, query, body, key);
    } catch (error) {
      if (error.status !== 401) throw error;
      // Requests that are refused together ask once. A request that used an older key tries the newer one.
      if (sessionStorage.getItem(KEY) !== key) continue;
      asking ??= door.ask(error.code === "key_invalid" ? error.message : "").then((given) => {
        sessionStorage.setItem(KEY, given);
        asking = null;
      });
      await asking;
    }
  }
}

async function request(path, query, body, key) {
  const url = new URL(`console/api/${path}`, document.baseURI);
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== "") url.searchParams.set(name, value);
  }
  const headers = { "corecast-console": "1" };
  if (key) headers.authorization = `Bearer ${key}`;
  const options = { headers, cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(15_000) };
  if (body !== undefined) {
    headers["content-type"] = "application/json";
    Object.assign(options, { method: "POST", body: typeof body === "string" ? body : JSON.stringify(body) });
  }
  let response;
  try {
    response = await fetch(url, options);
  } catch {
    throw new Refused(0, "unreachable", "the server cannot be reached");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) {
    throw new Refused(response.status, answer.code ?? "", answer.error ?? `the server answers ${response.status}`);
  }
  return answer;
}
