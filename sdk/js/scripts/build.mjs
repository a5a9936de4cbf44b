// dist/: ES modules and CommonJS with their types, and one minified file for browsers.
import { execFileSync } from "node:child_process";
import { copyFileSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));
rmSync("dist", { recursive: true, force: true });

const shared = { bundle: true, target: "es2022", logLevel: "warning" };
const library = { ...shared, entryPoints: ["src/index.ts"], platform: "neutral" };
const server = { ...shared, entryPoints: ["src/server.ts"], platform: "node", target: "node20" };
await Promise.all([
  // With splitting, both entries share one CorecastError.
  build({ ...shared, entryPoints: ["src/index.ts", "src/server.ts"], platform: "node", format: "esm", splitting: true, outdir: "dist" }),
  build({ ...library, format: "cjs", outfile: "dist/index.cjs" }),
  build({ ...server, format: "cjs", outfile: "dist/server.cjs" }),
  build({
    ...library,
    entryPoints: ["src/global.ts"],
    format: "iife",
    minify: true,
    mangleProps: /^_[a-z]/,
    outfile: "dist/corecast.min.js",
  }),
]);

execFileSync(process.execPath, ["node_modules/typescript/bin/tsc", "-p", "tsconfig.build.json"], { stdio: "inherit" });
rmSync("dist/global.d.ts");
for (const name of readdirSync("dist").filter((name) => name.endsWith(".d.ts"))) {
  const types = readFileSync(`dist/${name}`, "utf8");
  writeFileSync(`dist/${name.replace(".d.ts", ".d.cts")}`, types.replace(/(from "\.\/\w+)\.js"/g, '$1.cjs"'));
}
for (const name of ["LICENSE-MIT", "LICENSE-APACHE"]) if (existsSync(`../../${name}`)) copyFileSync(`../../${name}`, name);
