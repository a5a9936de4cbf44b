/** What npm would publish: the tarball is packed, installed beside a stranger, and used as the README says. */
import { execFile, execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { sign } from "../../src/server.js";
import { binary, FORGED, KEY, Server } from "../corecast.js";

const root = fileURLToPath(new URL("../..", import.meta.url));
const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const readme = readFileSync(join(root, "README.md"), "utf8");
let stranger: string;
let files: string[];

beforeAll(() => {
  stranger = mkdtempSync(join(tmpdir(), "corecast-js-"));
  const packed = execFileSync("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", stranger], { cwd: root });
  const [tarball] = Object.values(JSON.parse(String(packed))) as [{ filename: string; files: { path: string }[] }];
  files = tarball.files.map(({ path }) => path);
  const home = join(stranger, "node_modules", manifest.name);
  mkdirSync(home, { recursive: true });
  execFileSync("tar", ["xzf", join(stranger, tarball.filename), "-C", home, "--strip-components=1"]);
  writeFileSync(join(stranger, "package.json"), '{ "type": "module" }');
  mkdirSync(join(stranger, "node_modules/@types"));
  symlinkSync(join(root, "node_modules/@types/node"), join(stranger, "node_modules/@types/node"));
  symlinkSync(join(root, "node_modules/undici-types"), join(stranger, "node_modules/undici-types"));
});
afterAll(() => rmSync(stranger, { recursive: true, force: true }));

const node = (name: string, source: string) => {
  writeFileSync(join(stranger, name), source);
  return String(execFileSync(process.execPath, [name], { cwd: stranger })).trim();
};

test("the browser file is at most 5 KB, gzipped", () => {
  const size = gzipSync(readFileSync(join(root, "dist/corecast.min.js")), { level: 9 }).length;
  console.log(`corecast.min.js: ${size} bytes gzipped`);
  expect(size).toBeLessThanOrEqual(5_000);
});

test("the package holds dist, its licences and its README, and needs nothing", () => {
  expect(files.filter((path) => !path.startsWith("dist/")).sort()).toEqual([
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "package.json",
  ]);
  expect(files.filter((path) => /\.(js|cjs)$/.test(path) && !path.includes("chunk")).sort()).toEqual(
    ["dist/corecast.min.js", "dist/index.cjs", "dist/index.js", "dist/server.cjs", "dist/server.js"].sort(),
  );
  for (const kind of ["dependencies", "peerDependencies", "optionalDependencies"]) expect(manifest[kind]).toBeUndefined();
});

test("the lock file names no address to download from", () => {
  expect(readFileSync(join(root, "package-lock.json"), "utf8")).not.toContain('"resolved"');
});

test("import and require, client and backend", () => {
  const uses = (get: (path: string) => string) => `
    const { Corecast, CorecastError } = ${get("corecast-client")};
    const { CorecastBackend } = ${get("corecast-client/server")};
    const socket = new Corecast("ws://nowhere", { autoConnect: false, WebSocket: class {} });
    console.log(socket.state, new CorecastError("a", "b").code, new CorecastBackend({ key: "k:s" }).sign("1.1", "private-a").auth.length);`;
  expect(node("a.mjs", uses((path) => `await import("${path}")`))).toBe("initialized a 66");
  expect(node("a.cjs", uses((path) => `require("${path}")`))).toBe("initialized a 66");
});

test("importing has no side effect, and the browser file sets one global", () => {
  const globals = "Object.getOwnPropertyNames(globalThis).sort().join()";
  expect(node("b.mjs", `const before = ${globals}; await import("corecast-client"); console.log(before === ${globals});`)).toBe("true");
  expect(
    node(
      "c.cjs",
      `const before = new Set(Object.getOwnPropertyNames(globalThis));
       require("vm").runInThisContext(require("fs").readFileSync(require.resolve("corecast-client/corecast.min.js"), "utf8"));
       console.log(Object.getOwnPropertyNames(globalThis).filter((name) => !before.has(name)).join(), typeof Corecast.CorecastError);`,
    ),
  ).toBe("Corecast function");
});

/** What the compiler says of these files. */
function types(sources: Record<string, string>): string {
  for (const [name, source] of Object.entries(sources)) writeFileSync(join(stranger, name), source);
  const compiled = spawnSync(
    process.execPath,
    [
      join(root, "node_modules/typescript/bin/tsc"),
      ...["--noEmit", "--strict", "--target", "es2022", "--lib", "es2022,dom", "--module", "nodenext", "--types", "node"],
      ...Object.keys(sources),
    ],
    { cwd: stranger, encoding: "utf8" },
  );
  return compiled.stdout;
}

test("types resolve for import and for require", () => {
  const source = `
    import { Corecast, type Channel } from "corecast-client";
    import { CorecastBackend } from "corecast-client/server";
    const channel: Channel<{ paid: { id: number } }> = new Corecast("ws://x").subscribe<{ paid: { id: number } }>("a");
    channel.bind("paid", ({ id }) => id.toFixed());
    export const published: Promise<number> = new CorecastBackend({}).publish("a", "paid", { id: 1 });
  `;
  expect(types({ "types.mts": source, "types.cts": source })).toBe("");
});

describe("signing in other languages, as the README shows it", () => {
  const shown = (name: string) => readFileSync(join(root, "test/package/signing", name), "utf8").replace("<?php\n", "").trim();
  const [key, secret] = ["278d425bdf160c739803", "7ad3773142a6692b25b8"];
  const auth = `${key}:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4`;
  const data = '{"id":1}';
  const expected = [auth, sign(key, secret, "1234.1234", "private-foobar", data).auth];
  const call = (tail: string) => `sign("${key}", "${secret}", "foobar", "1234.1234", "private-foobar"${tail})`;
  const callForged = (socketId: string, channel: string) => `sign("${key}", "${secret}", "foobar", ${socketId}, ${channel}`;

  const languages = {
    "sign.py": {
      command: ["python3", "run.py"],
      source: (code: string) =>
        `${code}\nprint(${call("")}["auth"])\nprint(${call(`, '${data}'`)}["auth"])\n` +
        `for socket_id, channel in ${JSON.stringify(FORGED)}:\n    try:\n        print(${callForged("socket_id", "channel")}))\n` +
        `    except PermissionError as error:\n        print(error)\n`,
    },
    "sign.php": {
      command: ["php", "run.php"],
      source: (code: string) =>
        `<?php\n${code}\necho ${call("")}["auth"], "\\n", ${call(`, '${data}'`)}["auth"], "\\n";\n` +
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
        `\tfor _, f := range [][2]string{${FORGED.map((pair) => JSON.stringify(pair).replace("[", "{").replace(/]$/, "}"))}} {\n` +
        `\t\tauth, err := S${callForged("f[0]", "f[1]").slice(1)}, nil)\n\t\tif err != nil {\n\t\t\tauth = err.Error()\n\t\t}\n\t\tfmt.Println(auth)\n\t}\n}\n`,
    },
  };

  for (const [name, { command, source }] of Object.entries(languages)) {
    test(`${name} is in the README`, () => expect(readme).toContain(shown(name)));

    const [program, ...rest] = command as [string, ...string[]];
    const there = spawnSync(program, [program === "go" ? "version" : "--version"]).status === 0;
    if (!there) console.log(`${name} is not run: there is no ${program} here`);
    test.runIf(there)(`${name} signs the vector of the protocol, and nothing forged`, { timeout: 120_000 }, () => {
      writeFileSync(join(stranger, rest.at(-1)!), source(shown(name)));
      const output = execFileSync(program, rest, { cwd: stranger, encoding: "utf8" });
      expect(output.trim().split("\n")).toEqual([...expected, ...FORGED.map(() => "refused")]);
    });
  }
});

test("every source that is packed is built from what is here", () => {
  expect(readdirSync(join(root, "dist")).every((name) => files.includes(`dist/${name}`))).toBe(true);
});

describe("the README's examples, against a server", () => {
  /** The nth block of that language after a heading, with the addresses of this server. */
  const block = (heading: string, language = "js", nth = 0) => {
    const section = readme.split(new RegExp(`^## ${heading}\n`, "m"))[1]!;
    const found = [...section.matchAll(new RegExp(`(?<=^\`\`\`${language}\n)[^]*?(?=\`\`\`)`, "gm"))][nth]![0];
    return found.replace(/wss?:\/\/(127\.0\.0\.1:9000|example\.com\/ws)/, server.url).replace("/run/corecast.sock", server.adminSocket);
  };
  let server: Server;
  beforeAll(async () => {
    server = await Server.start();
    symlinkSync(join(root, "node_modules/ws"), join(stranger, "node_modules/ws"));
    symlinkSync(binary(), join(stranger, "corecast"));
    writeFileSync(join(stranger, "publish"), block("Quick start", "sh"));
  });
  afterAll(() => server?.dispose());

  const run = async (name: string, source: string) => {
    writeFileSync(join(stranger, name), source);
    const env = { ...process.env, PATH: `${stranger}:${process.env.PATH}`, CORECAST_ADMIN_SOCKET: server.adminSocket };
    return (await promisify(execFile)(process.execPath, [name], { cwd: stranger, env })).stdout;
  };
  /** For places that have none. */
  const webSocket = `globalThis.WebSocket ??= (await import("ws")).WebSocket;`;

  test("each block is run by one of these, or of those above, but for that which runs the example", () => {
    const languages = [...readme.matchAll(/^```(\S+)/gm)].map(([, language]) => language);
    expect(languages).toEqual(["js", "sh", "js", "html", "ts", "js", "js", "python", "php", "go", "sh"]);
    expect(block("Example", "sh")).toContain("npm run example ");
    expect(existsSync(join(root, manifest.scripts.example.replace(/^node /, "")))).toBe(true);
  });

  test("quick start", async () => {
    // As it stands; then the shown command publishes, and the process ends.
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

  test("backend", async () => {
    expect(await run("backend.mjs", block("Backend"))).toBe("200 true\n0 subscribers\n{ channels: [] }\n");
  });
});
