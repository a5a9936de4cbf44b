// The server's JSON interface. The token of the session, or the key, is kept until the tab is closed.

const TOKEN = "corecast-console-token";
/** Pending while the page gets another token. */
let entering = null;

/** A refusal by the server, or status 0 if the server cannot be reached. */
export class Refused extends Error {
  constructor(status, code, text) {
    super(text);
    this.status = status;
    this.code = code;
  }
}

/** Set by the page. `ask` asks the user: takes an error, and resolves to `{link}` or `{key}`. `entered`: the token has changed. */
export const door = { ask: async () => ({}), entered: () => {} };

/** Begins a session with the token of a link. */
export function begin(link) {
  entering = enter(link, "");
}

export const get = (path, query = {}) => call(path, query);
export const post = (path, body) => call(path, {}, body);

async function call(path, query, body) {
  for (;;) {
    await entering;
    const token = sessionStorage.getItem(TOKEN);
    if (token === null) {
      entering ??= enter(null, "");
      continue;
    }
    try {
      return await request(path, query, body, token);
    } catch (error) {
      if (error.status !== 401) throw error;
      // Requests that are refused together ask once. A request that used an older token tries the newer one.
      if (sessionStorage.getItem(TOKEN) !== token) continue;
      entering ??= enter(null, error.message);
    }
  }
}

/** Gets a token: by a link, if there is one, and else by asking, until there is one. */
async function enter(link, wrong) {
  for (;;) {
    try {
      if (link) return entered((await request("token", {}, "", link)).token);
    } catch (error) {
      // A link that was used before does not end a session.
      if (sessionStorage.getItem(TOKEN) !== null) return entered(sessionStorage.getItem(TOKEN));
      wrong = error.message;
    }
    sessionStorage.removeItem(TOKEN);
    const given = await door.ask(wrong);
    if (given.key) return entered(given.key);
    link = given.link;
  }
}

function entered(token) {
  sessionStorage.setItem(TOKEN, token);
  entering = null;
  door.entered();
}

async function request(path, query, body, token) {
  const url = new URL(`console/api/${path}`, document.baseURI);
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== "") url.searchParams.set(name, value);
  }
  const headers = { authorization: `Bearer ${token}` };
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
