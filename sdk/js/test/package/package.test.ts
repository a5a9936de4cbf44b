/** What npm would publish: the tarball is packed, installed beside a stranger, and used as the README says. */
import { execFile, execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { sign } from "../../src/server.js";
import { binary, Server } from "../corecast.js";

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

test("types resolve for import and for require", () => {
  const source = `
    import { Corecast, type Channel } from "corecast-client";
    import { CorecastBackend } from "corecast-client/server";
    const channel: Channel<{ paid: { id: number } }> = new Corecast("ws://x").subscribe<{ paid: { id: number } }>("a");
    channel.bind("paid", ({ id }) => id.toFixed());
    export const published: Promise<number> = new CorecastBackend({}).publish("a", "paid", { id: 1 });
  `;
  for (const name of ["types.mts", "types.cts"]) writeFileSync(join(stranger, name), source);
  mkdirSync(join(stranger, "node_modules/@types"), { recursive: true });
  symlinkSync(join(root, "node_modules/@types/node"), join(stranger, "node_modules/@types/node"));
  symlinkSync(join(root, "node_modules/undici-types"), join(stranger, "node_modules/undici-types"));
  const compiled = spawnSync(
    process.execPath,
    [
      join(root, "node_modules/typescript/bin/tsc"),
      ...["--noEmit", "--strict", "--target", "es2022", "--lib", "es2022,dom", "--module", "nodenext", "--types", "node"],
      ...["types.mts", "types.cts"],
    ],
    { cwd: stranger, encoding: "utf8" },
  );
  expect(compiled.stdout).toBe("");
});

describe("signing in other languages, as the README shows it", () => {
  const shown = (name: string) => readFileSync(join(root, "test/package/signing", name), "utf8").replace("<?php\n", "").trim();
  const [key, secret] = ["278d425bdf160c739803", "7ad3773142a6692b25b8"];
  const auth = `${key}:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4`;
  const data = '{"id":1}';
  const expected = [auth, sign(key, secret, "1234.1234", "private-foobar", data).auth];
  const call = (tail: string) => `sign("${key}", "${secret}", "1234.1234", "private-foobar"${tail})`;

  const languages = {
    "sign.py": {
      command: ["python3", "run.py"],
      source: (code: string) => `${code}\nprint(${call("")}["auth"])\nprint(${call(`, '${data}'`)}["auth"])\n`,
    },
    "sign.php": {
      command: ["php", "run.php"],
      source: (code: string) => `<?php\n${code}\necho ${call("")}["auth"], "\\n", ${call(`, '${data}'`)}["auth"], "\\n";\n`,
    },
    "sign.go": {
      command: ["go", "run", "run.go"],
      source: (code: string) =>
        code.replace('"errors"', '"errors"\n\t"fmt"') +
        `\nfunc main() {\n\tdata := \`${data}\`\n\tfor _, d := range []*string{nil, &data} {\n\t\tauth, err := S${call(", d").slice(1)}\n` +
        `\t\tif err != nil {\n\t\t\tpanic(err)\n\t\t}\n\t\tfmt.Println(auth)\n\t}\n}\n`,
    },
  };

  for (const [name, { command, source }] of Object.entries(languages)) {
    test(`${name} is in the README`, () => expect(readme).toContain(shown(name)));

    const [program, ...rest] = command as [string, ...string[]];
    const there = spawnSync(program, [program === "go" ? "version" : "--version"]).status === 0;
    if (!there) console.log(`${name} is not run: there is no ${program} here`);
    test.runIf(there)(`${name} signs the vector of the protocol`, { timeout: 120_000 }, () => {
      writeFileSync(join(stranger, rest.at(-1)!), source(shown(name)));
      const output = execFileSync(program, rest, { cwd: stranger, encoding: "utf8" });
      expect(output.trim().split("\n")).toEqual(expected);
    });
  }
});

test("every source that is packed is built from what is here", () => {
  expect(readdirSync(join(root, "dist")).every((name) => files.includes(`dist/${name}`))).toBe(true);
});

describe("the README's examples, against a server", () => {
  /** The nth block of that language after a heading, with the addresses of this server. */
  const block = (heading: string, nth = 0) => {
    const found = readme.split(`## ${heading}\n`)[1]!.match(/(?<=```js\n)[^]*?(?=```)/g)![nth]!;
    return found.replace(/ws:\/\/127\.0\.0\.1:9000/, server.url).replace("/run/corecast.sock", server.adminSocket);
  };
  let server: Server;
  beforeAll(async () => {
    server = await Server.start();
    symlinkSync(join(root, "node_modules/ws"), join(stranger, "node_modules/ws"));
  });
  afterAll(() => server?.dispose());

  const run = async (name: string, source: string) => {
    writeFileSync(join(stranger, name), source);
    return (await promisify(execFile)(process.execPath, [name], { cwd: stranger })).stdout;
  };

  test("quick start", async () => {
    // As it stands, in a place that has a WebSocket; then the shown command publishes, and the process ends.
    const source = `globalThis.WebSocket ??= (await import("ws")).WebSocket;
      const { execFileSync } = await import("node:child_process");
      ${block("Quick start").replace(/^import (.*) from (.*);$/m, "const $1 = await import($2);")}
      channel.bind("order.paid", () => socket.disconnect());
      execFileSync(${JSON.stringify(binary())}, ["publish", "user:13", "order.paid", '{"id": 42}'], {
        env: { ...process.env, CORECAST_ADMIN_SOCKET: ${JSON.stringify(server.adminSocket)} },
      });`;
    expect(await run("quick.mjs", source)).toBe("paid 42\n");
  });

  test("Node", async () => expect(await run("node.mjs", block("Quick start", 1))).toMatch(/^connected as [0-9a-f-]{36}\n$/));

  test("backend", async () => {
    expect(await run("backend.mjs", block("Backend"))).toBe("200 true\n0 subscribers\n{ channels: [] }\n");
  });
});
