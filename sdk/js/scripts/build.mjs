// Builds dist/. Every class exists once in each format, and Node's ES modules re-export the CommonJS build, so that a program
// that uses both has one CorecastError and one Corecast. Bundlers take the ES modules for import and for require ("module").
import { execFileSync } from "node:child_process";
import { copyFileSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { minify } from "terser";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));
rmSync("dist", { recursive: true, force: true });

const shared = { bundle: true, target: "es2022", logLevel: "warning", outdir: "dist", mangleProps: /^_[a-z]/ };
/** CommonJS has no shared chunks: what both entries use is a file of its own. */
const common = "./errors.js ./retry.js".split(" ");
const takeCommon = {
  name: "take common",
  setup: ({ onResolve }) =>
    onResolve({ filter: /^\.\/\w+\.js$/ }, ({ path }) => (common.includes(path) ? { path: "./common.cjs", external: true } : undefined)),
};
const commonjs = { ...shared, format: "cjs", platform: "node", outExtension: { ".js": ".cjs" } };
await Promise.all([
  build({ ...shared, entryPoints: ["src/index.ts", "src/server.ts", "src/global.ts"], platform: "node", format: "esm", splitting: true }),
  build({ ...commonjs, entryPoints: ["src/index.ts", "src/server.ts"], plugins: [takeCommon] }),
  build({
    ...commonjs,
    stdin: { contents: common.map((path) => `export * from "${path}";`).join(""), resolveDir: "src", loader: "ts" },
    outdir: undefined,
    outfile: "dist/common.cjs",
  }),
  build({
    ...shared,
    entryPoints: { "corecast.min": "src/global.ts" },
    platform: "neutral",
    format: "iife",
    minify: true,
  }),
]);
const browserFile = readFileSync("dist/corecast.min.js", "utf8");
writeFileSync("dist/corecast.min.js", (await minify(browserFile, { ecma: 2020, compress: { passes: 4, hoist_funs: true } })).code);
// The same script for require: in this package .js means an ES module.
copyFileSync("dist/corecast.min.js", "dist/corecast.min.cjs");

// The CommonJS declarations are the only ones; those of the ES modules re-export them.
execFileSync(process.execPath, ["node_modules/typescript/bin/tsc", "-p", "tsconfig.build.json"], { stdio: "inherit" });
const PUBLIC = ["auth", "channel", "corecast", "emitter", "errors", "index", "options", "retry", "server"];
for (const name of readdirSync("dist").filter((name) => name.endsWith(".d.ts"))) {
  const types = readFileSync(`dist/${name}`, "utf8");
  rmSync(`dist/${name}`);
  if (!PUBLIC.includes(name.replace(".d.ts", ""))) continue;
  writeFileSync(`dist/${name.replace(".d.ts", ".d.cts")}`, types.replace(/((?:from|import\()\s*"\.\/\w+)\.js"/g, '$1.cjs"'));
}
for (const entry of ["index", "server"]) {
  writeFileSync(`dist/${entry}.mjs`, `export { ${exportsOf(`dist/${entry}.js`)} } from "./${entry}.cjs";\n`);
  for (const extension of ["d.ts", "d.mts"]) writeFileSync(`dist/${entry}.${extension}`, `export * from "./${entry}.cjs";\n`);
}
const global = 'import type { Corecast as Class } from "./index.cjs";\ndeclare global {\n  var Corecast: typeof Class;\n}\n';
for (const extension of ["d.ts", "d.cts"]) writeFileSync(`dist/corecast.min.${extension}`, global);

for (const name of ["LICENSE-MIT", "LICENSE-APACHE"]) if (existsSync(`../../${name}`)) copyFileSync(`../../${name}`, name);

/** The names that an ES module exports, as esbuild writes them. */
function exportsOf(file) {
  const [, names] = /export \{([^}]*)\};\s*$/.exec(readFileSync(file, "utf8"));
  return names.trim().split(/,\s*/).map((name) => name.replace(/^.* as /, "")).join(", ");
}
