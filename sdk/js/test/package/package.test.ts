/** The package as npm would publish it: packed, installed for a consumer, and used as the README says. */
import { execFile, execFileSync, spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { sign } from "../../src/server.js";
import { binary, FORGED, KEY, Server } from "../corecast.js";

const root = fileURLToPath(new URL("../..", import.meta.url));
const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const readme = readFileSync(join(root, "README.md"), "utf8");
let consumer: string;
let files: string[];

beforeAll(() => {
  consumer = mkdtempSync(join(tmpdir(), "corecast-js-"));
  const packed = execFileSync("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", consumer], { cwd: root });
  const [tarball] = Object.values(JSON.parse(String(packed))) as [{ filename: string; files: { path: string }[] }];
  files = tarball.files.map(({ path }) => path);
  const home = join(consumer, "node_modules", manifest.name);
  mkdirSync(home, { recursive: true });
  execFileSync("tar", ["xzf", join(consumer, tarball.filename), "-C", home, "--strip-components=1"]);
  writeFileSync(join(consumer, "package.json"), '{ "type": "module" }');
  mkdirSync(join(consumer, "node_modules/@types"));
  symlinkSync(join(root, "node_modules/@types/node"), join(consumer, "node_modules/@types/node"));
  symlinkSync(join(root, "node_modules/undici-types"), join(consumer, "node_modules/undici-types"));
});
afterAll(() => rmSync(consumer, { recursive: true, force: true }));

const node = (name: string, source: string) => {
  writeFileSync(join(consumer, name), source);
  return String(execFileSync(process.execPath, [name], { cwd: consumer })).trim();
};

test("the browser file is at most 6 KB, gzipped", () => {
  const size = gzipSync(readFileSync(join(root, "dist/corecast.min.js")), { level: 9 }).length;
  console.log(`corecast.min.js: ${size} bytes gzipped`);
  expect(size).toBeLessThanOrEqual(6_000);
  expect(readme).toContain(`\`dist/corecast.min.js\` has ${(size / 1_000).toFixed(1)} KB gzipped`);
});

test("no class has a static block, which browsers have had for a shorter time than the rest", () => {
  for (const name of readdirSync(join(root, "dist")).filter((name) => /\.[cm]?js$/.test(name))) {
    expect(readFileSync(join(root, "dist", name), "utf8"), name).not.toMatch(/static\s*\{/);
  }
});

test("installation, as the README says", () => {
  const [make, install] = /## Installation[^]*?```sh\n(.*)\n(.*)\n```/.exec(readme)!.slice(1);
  expect(make).toMatch(/^\(cd sdk\/js && npm ci && npm pack\) +# makes (\S+)$/);
  expect(manifest.scripts.prepack).toBe(manifest.scripts.build);
  const clone = mkdtempSync(join(tmpdir(), "corecast-js-"));
  mkdirSync(join(clone, "sdk/js"), { recursive: true });
  mkdirSync(join(clone, "your-application"));
  const tarball = `${manifest.name}-${manifest.version}.tgz`;
  expect(make).toContain(` ${tarball}`);
  copyFileSync(join(consumer, tarball), join(clone, "sdk/js", tarball));
  execFileSync("sh", ["-c", install!], { cwd: clone, env: { ...process.env, npm_config_offline: "true" } });
  expect(existsSync(join(clone, "your-application/node_modules/corecast-client/dist/index.mjs"))).toBe(true);
  rmSync(clone, { recursive: true });
});

test("the package holds dist, its licences and its README, and has no dependencies", () => {
  expect(files.filter((path) => !path.startsWith("dist/")).sort()).toEqual([
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "package.json",
  ]);
  for (const kind of ["dependencies", "peerDependencies", "optionalDependencies"]) expect(manifest[kind]).toBeUndefined();
});

test("the lock file names no address to download from", () => {
  expect(readFileSync(join(root, "package-lock.json"), "utf8")).not.toContain('"resolved"');
});

test.each(["mjs", "cjs"])("every entry can be loaded by import and by require: %s", (extension) => {
  const get = (path: string) => (extension === "mjs" ? `await import("${path}")` : `require("${path}")`);
  const source = `
    const { Corecast, CorecastError } = ${get("corecast-client")};
    const { CorecastBackend } = ${get("corecast-client/server")};
    ${get("corecast-client/corecast.min.js")};
    const socket = new Corecast("ws://nowhere", { autoConnect: false, WebSocket: class {} });
    const other = new globalThis.Corecast("ws://nowhere", { autoConnect: false, WebSocket: class {} });
    const { auth } = new CorecastBackend({ key: "k:s" }).sign("1.1", "private-a");
    console.log(socket.state, other.state, new CorecastError("a", "b").code, auth.length);`;
  expect(node(`load.${extension}`, source)).toBe("initialized initialized a 66");
});

test("classes and errors are the same objects, whichever entry and format they come from", () => {
  const source = `
    import { createRequire } from "node:module";
    import * as client from "corecast-client";
    import * as server from "corecast-client/server";
    const require = createRequire(import.meta.url);
    const [oldClient, oldServer] = [require("corecast-client"), require("corecast-client/server")];
    for (const name of Object.keys(oldClient)) if (client[name] !== oldClient[name]) console.log("two of", name);
    for (const name of Object.keys(oldServer)) if (server[name] !== oldServer[name]) console.log("two of", name);
    console.log(client.CorecastError === server.CorecastError, client.Corecast.CorecastError === client.CorecastError);
    console.log(Object.keys(client).join(), Object.keys(server).join());
    try { new oldServer.CorecastBackend({}).sign("1.1", "private-a"); } catch (error) { console.log(error instanceof client.CorecastError); }`;
  expect(node("same.mjs", source)).toBe(
    "true true\nCorecast,CorecastError CorecastBackend,CorecastError,sign\ntrue",
  );
});

test("importing has no side effect, and the browser file sets one global", () => {
  const globals = "Object.getOwnPropertyNames(globalThis).sort().join()";
  expect(node("b.mjs", `const before = ${globals}; await import("corecast-client"); console.log(before === ${globals});`)).toBe("true");
  for (const path of ["corecast-client/corecast.min.js", "corecast-client/dist/corecast.min.js"]) {
    expect(
      node(
        "c.cjs",
        `const before = new Set(Object.getOwnPropertyNames(globalThis));
         require("vm").runInThisContext(require("fs").readFileSync(require.resolve("${path}"), "utf8"));
         console.log(Object.getOwnPropertyNames(globalThis).filter((name) => !before.has(name)).join(), typeof Corecast.CorecastError);`,
      ),
    ).toBe("Corecast function");
  }
});

/** Bundles `source` for the browser and runs the bundle. */
async function bundled(source: string): Promise<string> {
  writeFileSync(join(consumer, "bundle-me.mjs"), source);
  const outfile = join(consumer, "bundle.cjs");
  await build({ entryPoints: [join(consumer, "bundle-me.mjs")], bundle: true, platform: "browser", outfile, logLevel: "error" });
  return String(execFileSync(process.execPath, [outfile], { cwd: consumer })).trim();
}

test("a bundler keeps an import of the browser file, which is then the same class", async () => {
  const source = `
    import "corecast-client/corecast.min.js";
    import { Corecast } from "corecast-client";
    const old = require("corecast-client");
    console.log(globalThis.Corecast === Corecast, old.Corecast === Corecast, old.CorecastError === Corecast.CorecastError);`;
  expect(await bundled(source)).toBe("true true true");
  expect(await bundled(`import "corecast-client/corecast.min.js"; console.log(typeof globalThis.Corecast);`)).toBe("function");
});

test("a bundler drops an import that is not used", async () => {
  await bundled(`import { Corecast } from "corecast-client"; console.log("hello");`);
  expect(readFileSync(join(consumer, "bundle.cjs"), "utf8").length).toBeLessThan(1_000);
});

/** The compiler's errors in these files, with these libraries. */
function types(sources: Record<string, string>, lib = "es2022,dom", nodeTypes = true, resolution = "nodenext"): string {
  for (const [name, source] of Object.entries(sources)) writeFileSync(join(consumer, name), source);
  const module = resolution === "bundler" ? "esnext" : resolution;
  const compiled = spawnSync(
    process.execPath,
    [
      join(root, "node_modules/typescript/bin/tsc"),
      ...["--noEmit", "--strict", "--exactOptionalPropertyTypes", "--target", "es2022", "--lib", lib],
      ...["--module", module, "--moduleResolution", resolution],
      ...(nodeTypes ? ["--types", "node"] : ["--typeRoots", "no-types"]),
      ...Object.keys(sources),
    ],
    { cwd: consumer, encoding: "utf8" },
  );
  return compiled.stdout;
}

const TYPED = `
  import { Corecast, CorecastError, type Channel, type Options } from "corecast-client";
  import { CorecastBackend } from "corecast-client/server";
  const options: Options = { auth: { endpoint: "/auth", credentials: "include" } };
  const signed: Options = { auth: async ({ signal }) => (signal.aborted ? null : { auth: "k:s" }) };
  const channel: Channel<{ paid: { id: number } }> = new Corecast("ws://x", options).subscribe<{ paid: { id: number } }>("a");
  channel.bind("paid", ({ id }) => id.toFixed()).once("paid", ({ id }) => id.toFixed());
  export const error: CorecastError | undefined = new Corecast("ws://x", signed).lastError;
  export const published: Promise<number> = new CorecastBackend({}).publish("a", "paid", { id: 1 });
`;

test.each([
  ["the DOM and Node", "es2022,dom", true],
  ["Node", "es2022", true],
  ["neither the DOM nor Node", "es2022", false],
])("types resolve for import and for require, with %s", { timeout: 120_000 }, (_, lib, nodeTypes) => {
  expect(types({ "types.mts": TYPED, "types.cts": TYPED }, lib, nodeTypes)).toBe("");
  expect(types({ "types.ts": TYPED }, lib, nodeTypes, "bundler")).toBe("");
});

test("the types of both formats are the same, signals are those of fetch, and the browser file declares its global", { timeout: 120_000 }, () => {
  const modern = `
    import { Corecast } from "corecast-client";
    import "corecast-client/corecast.min.js";
    import { use } from "./old.cjs";
    use(new Corecast("ws://x"));
    use(new globalThis.Corecast(new URL("ws://x"), { auth: async ({ signal }) => (await fetch("/auth", { signal })).json() }));`;
  const old = `
    import { Corecast } from "corecast-client";
    export function use(socket: Corecast) { return socket.state; }`;
  expect(types({ "modern.mts": modern, "old.cts": old })).toBe("");
});

describe("signing in other languages, as the README shows it", () => {
  const shown = (name: string) => readFileSync(join(root, "test/package/signing", name), "utf8").replace("<?php\n", "").trim();
  const [key, secret] = ["278d425bdf160c739803", "7ad3773142a6692b25b8"];
  const auth = `${key}:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4`;
  const data = '{"id":1}';
  const expected = [
    auth,
    ...["private-foobar", "presence-lobby"].map((channel) => sign(key, secret, "1234.1234", channel, data).auth),
  ];
  const call = (tail: string, channel = "private-foobar") => `sign("${key}", "${secret}", "foobar", "1234.1234", "${channel}"${tail})`;
  const callForged = (socketId: string, channel: string) => `sign("${key}", "${secret}", "foobar", ${socketId}, ${channel}`;

  const languages = {
    "sign.py": {
      command: ["python3", "run.py"],
      source: (code: string) =>
        `${code}\nprint(${call("")}["auth"])\nprint(${call(`, '${data}'`)}["auth"])\n` +
        `print(${call(`, '${data}'`, "presence-lobby")}["auth"])\n` +
        `for socket_id, channel in ${JSON.stringify(FORGED)}:\n    try:\n        print(${callForged("socket_id", "channel")}))\n` +
        `    except PermissionError as error:\n        print(error)\n`,
    },
    "sign.php": {
      command: ["php", "run.php"],
      source: (code: string) =>
        `<?php\n${code}\necho ${call("")}["auth"], "\\n", ${call(`, '${data}'`)}["auth"], "\\n";\n` +
        `echo ${call(`, '${data}'`, "presence-lobby")}["auth"], "\\n";\n` +
        `foreach (json_decode('${JSON.stringify(FORGED)}') as [$socketId, $channel]) {\n` +
        `    try {\n        echo ${callForged("$socketId", "$channel")})["auth"], "\\n";\n` +
        `    } catch (DomainException $error) {\n        echo $error->getMessage(), "\\n";\n    }\n}\n`,
    },
    "sign.go": {
      command: ["go", "run", "run.go"],
      source: (code: string) =>
        code.replace('"errors"', '"errors"\n\t"fmt"') +
        `\nfunc main() {\n\tdata := \`${data}\`\n\tfor _, d := range []*string{nil, &data} {\n\t\tauth, err := S${call(", d").slice(1)}\n` +
        `\t\tif err != nil {\n\t\t\tpanic(err)\n\t\t}\n\t\tfmt.Println(auth)\n\t}\n` +
        `\tlobby, _ := S${call(", &data", "presence-lobby").slice(1)}\n\tfmt.Println(lobby)\n` +
        `\tfor _, f := range [][2]string{${FORGED.map((pair) => JSON.stringify(pair).replace("[", "{").replace(/]$/, "}"))}} {\n` +
        `\t\tauth, err := S${callForged("f[0]", "f[1]").slice(1)}, nil)\n\t\tif err != nil {\n\t\t\tauth = err.Error()\n\t\t}\n\t\tfmt.Println(auth)\n\t}\n}\n`,
    },
  };

  for (const [name, { command, source }] of Object.entries(languages)) {
    test(`${name} is in the README`, () => expect(readme).toContain(shown(name)));

    const [program, ...rest] = command as [string, ...string[]];
    const installed = spawnSync(program, [program === "go" ? "version" : "--version"]).status === 0;
    if (!installed) console.log(`${name} is not run: ${program} is not installed`);
    test.runIf(installed)(`${name} signs the vector of the protocol, and nothing forged`, { timeout: 120_000 }, () => {
      writeFileSync(join(consumer, rest.at(-1)!), source(shown(name)));
      const output = execFileSync(program, rest, { cwd: consumer, encoding: "utf8" });
      expect(output.trim().split("\n")).toEqual([...expected, ...FORGED.map(() => "refused")]);
    });
  }
});

test("every source that is packed is built from what is here", () => {
  expect(readdirSync(join(root, "dist")).every((name) => files.includes(`dist/${name}`))).toBe(true);
});

describe("the README's examples, against a server", () => {
  /** The nth block of a language below a heading, with the addresses of this server. */
  const block = (heading: string, language = "js", nth = 0) => {
    const section = readme.split(new RegExp(`^## ${heading}\n`, "m"))[1]!;
    const found = [...section.matchAll(new RegExp(`(?<=^\`\`\`${language}\n)[^]*?(?=\`\`\`)`, "gm"))][nth]![0];
    return found.replace(/wss?:\/\/(127\.0\.0\.1:9000|example\.com\/ws)/, server.url).replace("/run/corecast.sock", server.adminSocket);
  };
  let server: Server;
  beforeAll(async () => {
    server = await Server.withRules([...readme.matchAll(/(?<=^```toml\n)[^]*?(?=```)/gm)].join("\n"));
    symlinkSync(join(root, "node_modules/ws"), join(consumer, "node_modules/ws"));
    symlinkSync(binary(), join(consumer, "corecast"));
    writeFileSync(join(consumer, "publish"), block("Quick start", "sh"));
  });
  afterAll(() => server?.dispose());

  const run = async (name: string, source: string) => {
    writeFileSync(join(consumer, name), source);
    const env = { ...process.env, PATH: `${consumer}:${process.env.PATH}`, CORECAST_ADMIN_SOCKET: server.adminSocket };
    return (await promisify(execFile)(process.execPath, [name], { cwd: consumer, env })).stdout;
  };
  /** For Node 20. */
  const webSocket = `globalThis.WebSocket ??= (await import("ws")).WebSocket;`;

  test("each block is run by one of these tests, of those above, or of react.test.ts, except the command that runs the example", () => {
    const languages = [...readme.matchAll(/^```(\S+)/gm)].map(([, language]) => language);
    expect(languages).toEqual(["sh", "js", "sh", "js", "html", "ts", "toml", "js", "js", "js", "toml", "js", "js", "js", "js", "js", "jsx", "js", "js", "python", "php", "go", "sh"]);
    expect(block("Example", "sh")).toContain("npm run example ");
    expect(existsSync(join(root, manifest.scripts.example.replace(/^node /, "")))).toBe(true);
  });

  test("quick start", async () => {
    // Unchanged; then the command of the second block publishes, and the process ends.
    const source = `${webSocket}
      ${block("Quick start").replace(/^import (.*) from (.*);$/m, "const $1 = await import($2);")}
      channel.bind("order.paid", () => socket.disconnect());
      (await import("node:child_process")).execFileSync("sh", ["publish"]);`;
    expect(await run("quick.mjs", source)).toBe("paid 42\n");
  });

  test("Node", async () =>
    expect(await run("node.mjs", block("Quick start", "js", 1))).toMatch(/^connected as [0-9a-f-]{36}\n$/));

  test("without a bundler", async () => {
    const [, file, script] = block("Quick start", "html").match(/^<script src="(.*)"><\/script>\n<script>([^]*)<\/script>\n$/)!;
    const source = `${webSocket}
      const { runInThisContext } = await import("node:vm");
      const { readFileSync } = await import("node:fs");
      runInThisContext(readFileSync("node_modules/corecast-client/dist/${file}", "utf8"));
      const { CorecastBackend } = await import("corecast-client/server");
      const log = console.log;
      console.log = (data) => (log(data), process.exit());
      runInThisContext(${JSON.stringify(script)});
      for (const backend = new CorecastBackend({ adminSocket: "${server.adminSocket}" }); ; ) await backend.publish("news", "headline", "heard");`;
    expect(await run("page.mjs", source)).toBe("heard\n");
  });

  test("types", { timeout: 120_000 }, () => {
    const source = (text: string) =>
      `import { Corecast } from "corecast-client";\nconst socket = new Corecast("ws://x");\n${text}`;
    const shown = block("API", "ts");
    expect(types({ "shown.mts": source(shown) })).toBe("");
    expect(types({ "wrong.mts": source(shown.replace("order.paid\", ({", "order.piad\", ({")) })).toContain("order.piad");
  });

  test("recovery", async () => {
    const source = `${webSocket}
      const { Corecast } = await import("corecast-client");
      const { CorecastBackend } = await import("corecast-client/server");
      const backend = new CorecastBackend({ adminSocket: "${server.adminSocket}" });
      const socket = new Corecast("${server.url}");
      const database = [];
      const ordersOfDatabase = async () => [...database];
      const commit = (id) => database.push({ id, dish: "Pho" });
      const publish = (id) => backend.publish("board", "order.placed", { id, dish: "Pho" });
      let loads = 0;
      globalThis.fetch = async () => {
        loads += 1;
        ${block("Recovery", "js", 0)}
        await publish(3); // arrives while the state is loaded, and is not in it
        return new Response(JSON.stringify(answer));
      };
      commit(1);
      await publish(1);
      commit(2);
      ${block("Recovery", "js", 1)}
      await board.subscribed;
      const until = async (size) => { while (orders.size < size) await new Promise((resolve) => setTimeout(resolve, 5)); };
      await until(3);
      await publish(2); // was in the state before it was published
      await publish(4);
      await until(4);
      console.log([...orders.keys()].join(), loads);
      socket.disconnect();`;
    expect(await run("recovery.mjs", source)).toBe("1,2,3,4 1\n");
  });

  test("presence and client events", async () => {
    const [bind, trigger] = block("Client events").trim().split("\n");
    const source = `${webSocket}
      const { Corecast } = await import("corecast-client");
      const { CorecastBackend } = await import("corecast-client/server");
      const backend = new CorecastBackend({ key: "${KEY}" });
      const connected = (user_id) =>
        new Corecast("${server.url}", {
          auth: ({ socketId, channel }) => backend.signPresence(socketId, channel, { user_id, user_info: { name: "Ms " + user_id } }),
        });
      const socket = connected("1");
      ${block("Presence")}
      ${bind}
      await room.subscribed;
      const heard = new Promise((resolve) => room.bind("client-typing", resolve));
      const other = connected("2");
      {
        const room = other.subscribe("presence-room.7");
        await room.subscribed;
        ${trigger}
      }
      await heard;
      socket.disconnect();
      other.disconnect();`;
    expect(await run("presence.mjs", source)).toBe("1 online: Ms 1\n2 online: Ms 1, Ms 2\n2 types\n");
  });

  test("users", async () => {
    const source = `${webSocket}
      const { Corecast } = await import("corecast-client");
      const { CorecastBackend } = await import("corecast-client/server");
      const backend = new CorecastBackend({ key: "${KEY}", adminSocket: "${server.adminSocket}" });
      let publishLater;
      globalThis.fetch = async (path, { body: form }) => {
        ${block("Users", "js", 1)}
        publishLater = publish;
        return new Response(JSON.stringify(answer));
      };
      const socket = new Corecast("${server.url}");
      ${block("Users")}
      user.bind("order.paid", () => socket.disconnect());
      await user.subscribed;
      const { userId } = socket;
      console.log(await publishLater({ id: 42 }), "connection of", userId);`;
    expect((await run("users.mjs", source)).split("\n").sort()).toEqual(["", "1 connection of 1", "paid 42"]);
  });

  test("private channels", async () => {
    const source = `${webSocket}
      const client = await import("corecast-client");
      const { CorecastBackend } = await import("corecast-client/server");
      const backend = new CorecastBackend({ key: "${KEY}" });
      const forms = [];
      globalThis.fetch = async (endpoint, { body, headers }) => {
        forms.push([endpoint, headers?.authorization, body.get("tenant"), body.get("socket_id").includes(".")].join());
        const answer = await backend.authorize(body, () => true);
        return new Response(answer.body, { status: answer.status });
      };
      const [token, url] = [() => "t", "${server.url}"];
      const mySignature = (socketId, channel) => backend.sign(socketId, channel).auth;
      const sockets = [];
      class Corecast extends client.Corecast {
        constructor(...options) {
          sockets.push(super(...options));
        }
      }
      ${block("Private channels")}
      for (const socket of sockets) {
        await socket.subscribe("private-user.1").subscribed;
        socket.disconnect();
      }
      console.log(forms.join(" "), sockets.length);`;
    expect(await run("private.mjs", source)).toBe("/auth,,,false /auth,Bearer t,7,true 3\n");
  });

  test("large numbers", async () => {
    const text = '{"event":"tick","channel":"a","data":[9007199254740993,1.5,"12345678901234567"]}';
    const source = `
      const url = "ws://nowhere";
      const parsed = [];
      class Corecast {
        constructor(url, { parse }) {
          parsed.push(parse);
        }
      }
      ${block("Large numbers")}
      const message = parsed[1]('${text}');
      console.log(message.event, message.text === '${text}');
      // In an older Node the reviver gets no context: this stands in for it.
      if (!(() => { let has = false; JSON.parse("1", (key, value, context) => (has = !!context)); return has; })()) {
        const { parse } = JSON;
        const sources = ["9007199254740993", "1.5"];
        JSON.parse = (text, reviver) => parse(text, (key, value) => reviver(key, value, { source: typeof value === "number" ? sources.shift() : undefined }));
      }
      console.log(parsed[0]('${text}').data);`;
    expect(await run("large.mjs", source)).toBe("tick true\n[ 9007199254740993n, 1.5, '12345678901234567' ]\n");
  });

  test("a route handler of Next.js", async () => {
    const source = `
      process.env.CORECAST_KEY = "${KEY}";
      ${block("Next.js and other server rendering")}
      for (const channel_name of ["private-user.1", "private-user.2"]) {
        const body = new URLSearchParams({ socket_id: "1234.1234", channel_name });
        const response = await POST(new Request("http://localhost/auth", { method: "POST", body }));
        console.log(response.status, response.headers.get("content-type"), Object.keys(await response.json()).join());
      }`;
    expect(await run("route.mjs", source)).toBe("200 application/json auth\n403 application/json error\n");
  });

  test("backend", async () => {
    expect(await run("backend.mjs", block("Backend"))).toMatch(/^200 true\n0 subscribers\n\[[^]*\]\n\{ channels: \[\] \}\n$/);
  });
});
