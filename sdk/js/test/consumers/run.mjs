/**
 * Builds applications from the packed package, as its consumers would, and runs them: node run.mjs TARBALL.
 * Each line of the output is one application; the exit status is 1 if one of them does not do what it should.
 */
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import * as esbuild from "esbuild";
import * as vite from "vite";
import webpack from "webpack";

const here = import.meta.dirname;
const directory = mkdtempSync(join(tmpdir(), "corecast-consumers-"));
const modules = join(directory, "node_modules");
mkdirSync(join(modules, "corecast-client"), { recursive: true });
execFileSync("tar", ["xzf", resolve(process.argv[2]), "-C", join(modules, "corecast-client"), "--strip-components=1"]);
symlinkSync(join(here, "node_modules/ws"), join(modules, "ws"));
writeFileSync(join(directory, "package.json"), '{ "type": "module" }');

const nodes = [process.execPath, ...["node22", "node24"].map((name) => join(here, "node_modules", name, "bin/node"))].filter(existsSync);
const version = (node) => String(execFileSync(node, ["--version"])).trim();
let failures = 0;
function check(what, output, expected) {
  const passed = output === expected;
  console.log(passed ? "ok  " : "FAIL", what, passed ? "" : `\n${output}\ninstead of\n${expected}`);
  if (!passed) failures += 1;
}
const write = (name, source) => {
  writeFileSync(join(directory, name), source);
  return join(directory, name);
};
/** The output of a program, in one version of Node. */
function output(node, file) {
  const { stdout, stderr, status } = spawnSync(node, [file], { cwd: directory, encoding: "utf8", timeout: 60_000 });
  return stdout.trim() + (status === 0 ? "" : ` exit ${status}: ${stderr}`);
}

// One application for all: a part in CommonJS and a part in ES modules, which exchange sockets and errors.
write(
  "legacy.cjs",
  `const { Corecast, CorecastError } = require("corecast-client");
   const server = process.env.NO_SERVER ? { CorecastError } : require("corecast-client/server");
   module.exports = { Corecast, CorecastError, ServerError: server.CorecastError };`,
);
const app = (withServer) => `
  import { Corecast, CorecastError } from "corecast-client";
  import legacy from "./${withServer ? "legacy" : "browser"}.cjs";
  ${withServer ? 'import { CorecastBackend, CorecastError as ServerError } from "corecast-client/server";' : "const ServerError = CorecastError;"}
  import "corecast-client/corecast.min.js";
  const socket = new Corecast("ws://127.0.0.1:9", { autoConnect: false });
  let error = "none";
  ${withServer ? 'try { new CorecastBackend({}).sign("1.1", "private-a"); } catch (thrown) { error = thrown; }' : 'error = new CorecastError("no_key", "");'}
  console.log(
    [Corecast === legacy.Corecast, socket instanceof legacy.Corecast, CorecastError === legacy.CorecastError].join(),
    [ServerError === CorecastError, legacy.ServerError === CorecastError, error instanceof CorecastError, error.code].join(),
    [typeof globalThis.Corecast, socket.state, Corecast.CorecastError === CorecastError].join(),
  );`;
write("browser.cjs", `const client = require("corecast-client"); module.exports = { ...client, ServerError: client.CorecastError };`);
const SAME = "true,true,true true,true,true,no_key function,initialized,true";

const onServer = write("server-app.mjs", app(true));
const inBrowser = write("browser-app.mjs", app(false));
const unused = write("unused.mjs", 'import { Corecast } from "corecast-client"; console.log("unused");');
const onlyBrowserFile = write("global.mjs", 'import "corecast-client/corecast.min.js"; console.log(typeof globalThis.Corecast);');

for (const node of nodes) check(`Node ${version(node)}, ES modules and CommonJS together`, output(node, onServer), SAME);

/** Bundlers: (entry, name of the output, platform) → path of the bundle. */
const bundlers = {
  esbuild: async (entry, name, platform, format = "esm") => {
    const outfile = join(directory, `${name}.${format === "esm" ? "mjs" : "cjs"}`);
    await esbuild.build({ entryPoints: [entry], bundle: true, platform, format, outfile, minify: true, logLevel: "error" });
    return outfile;
  },
  "esbuild, CommonJS": (entry, name, platform) => bundlers.esbuild(entry, name, platform, "cjs"),
  webpack: async (entry, name, platform) => {
    const compiler = webpack({
      mode: "production",
      target: platform === "node" ? "node20" : "web",
      entry,
      output: { path: directory, filename: `${name}.cjs` },
    });
    const stats = await promisify(compiler.run.bind(compiler))();
    await promisify(compiler.close.bind(compiler))();
    if (stats.hasErrors() || stats.hasWarnings()) throw new Error(stats.toString("errors-warnings"));
    return join(directory, `${name}.cjs`);
  },
  Vite: async (entry, name, platform) => {
    const build = { outDir: join(directory, name), minify: true, rollupOptions: { input: entry, output: { entryFileNames: "out.mjs" } } };
    if (platform === "node") build.ssr = entry;
    // A dependency that is bundled for a server is not left to Node.
    await vite.build({ root: directory, logLevel: "error", build, ssr: { noExternal: ["corecast-client"] } });
    return join(directory, name, "out.mjs");
  },
};
let number = 0;
for (const [bundler, bundle] of Object.entries(bundlers)) {
  const run = async (entry, platform) => output(nodes[0], await bundle(entry, `out-${(number += 1)}`, platform));
  check(`${bundler} for a browser, ES modules and CommonJS together`, await run(inBrowser, "browser"), SAME);
  check(`${bundler} for Node, with the server entry`, await run(onServer, "node"), SAME);
  check(`${bundler} keeps the browser file`, await run(onlyBrowserFile, "browser"), "function");
  const file = await bundle(unused, `out-${(number += 1)}`, "browser");
  check(`${bundler} drops an unused import`, String(readFileSync(file, "utf8").includes("socket:subscribe")), "false");
}

// Types, without the DOM's library and Node's.
const typed = `
  import { Corecast, CorecastError, type Options } from "corecast-client";
  import { CorecastBackend } from "corecast-client/server";
  const options: Options = { auth: ({ signal }) => (signal.aborted ? null : { auth: "k:s" }) };
  export const error: CorecastError | undefined = new Corecast("ws://x", options).lastError;
  export const published: Promise<number> = new CorecastBackend({}).publish("a", "x");`;
for (const name of ["types.ts", "types.mts", "types.cts"]) write(name, typed);
for (const [resolution, module, ...files] of [
  ["nodenext", "nodenext", "types.mts", "types.cts"],
  ["node16", "node16", "types.mts", "types.cts"],
  ["bundler", "esnext", "types.ts"],
  ["node10", "commonjs", "types.ts"],
]) {
  const options = ["--noEmit", "--strict", "--target", "es2022", "--lib", "es2022", "--typeRoots", "none", "--ignoreDeprecations", "5.0"];
  const compiler = [join(here, "node_modules/typescript/bin/tsc"), ...options, "--module", module, "--moduleResolution", resolution, ...files];
  const { stdout } = spawnSync(process.execPath, compiler, { cwd: directory, encoding: "utf8" });
  check(`tsc, --moduleResolution ${resolution}, --lib es2022`, stdout.trim(), "");
}

// Each version of Node against a server: its own WebSocket, if it has one, and that of ws.
const adminSocket = join(directory, "admin");
const server = spawn(process.env.CORECAST_BIN, [
  ...["serve", "--listen", "127.0.0.1:0", "--http", "off", "--admin-socket", adminSocket, "--shards", "1", "--pin", "none"],
], { stdio: ["ignore", "ignore", "pipe"] }); // prettier-ignore
let log = "";
const address = await new Promise((resolve, reject) => {
  server.stderr.on("data", (text) => {
    log += text;
    const found = /listening on (\S+) /.exec(log);
    if (found) resolve(found[1]);
  });
  server.once("exit", () => reject(new Error(log)));
});
try {
  const live = write(
    "live.mjs",
    `import * as ws from "ws";
     import { createServer } from "node:http";
     import { Corecast } from "corecast-client";
     import { CorecastBackend } from "corecast-client/server";
     const backend = new CorecastBackend({ adminSocket: ${JSON.stringify(adminSocket)} });
     const refusing = createServer().on("upgrade", (request, socket) => socket.end("HTTP/1.1 403 Forbidden\\r\\nContent-Length: 0\\r\\n\\r\\n"));
     await new Promise((resolve) => refusing.listen(0, "127.0.0.1", resolve));
     for (const WebSocket of [globalThis.WebSocket, ws.WebSocket]) {
       if (!WebSocket) continue;
       const socket = new Corecast("ws://${address}", { WebSocket });
       const channel = socket.subscribe("a");
       const heard = new Promise((resolve) => channel.once("x", resolve));
       await channel.subscribed;
       await backend.publish("a", "x", "heard");
       console.log(await heard);
       socket.disconnect();
       const refused = new Corecast("ws://127.0.0.1:" + refusing.address().port, { WebSocket });
       const { code, status, message } = await new Promise((resolve) => refused.on("closed", resolve));
       console.log(code, message.includes("within") ? "late" : "at once", status);
       refused.disconnect();
     }
     refusing.close();
     await backend.close();`,
  );
  for (const node of nodes) {
    const own = version(node).startsWith("v20.") ? "" : "heard\nconnect_failed at once undefined\n";
    const expected = `${own}heard\nconnect_failed at once 403`;
    check(`Node ${version(node)} against a server`, output(node, live), expected);
  }
} finally {
  server.kill();
  rmSync(directory, { recursive: true, force: true });
}
process.exitCode = failures ? 1 : 0;
console.log(failures ? `${failures} failed` : "all passed");
