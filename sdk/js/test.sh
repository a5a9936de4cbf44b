#!/usr/bin/env bash
# All tests of the JavaScript client: types, unit and property tests, the package, a real server, Chromium.
# Needs Node >= 20 and the server's binary: CORECAST_BIN, target/release/corecast or target/debug/corecast.
# Installs the development dependencies, and Chromium by apt if it is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

bin=
for place in "${CORECAST_BIN:-}" ../../target/release/corecast ../../target/debug/corecast; do
    if [ -n "$place" ] && [ -x "$place" ]; then
        bin=$(realpath "$place")
        break
    fi
done
if [ -z "$bin" ]; then
    echo "no corecast binary: run cargo build, or set CORECAST_BIN to its path" >&2
    exit 1
fi
export CORECAST_BIN=$bin

if [ -z "${CHROMIUM_BIN:-}" ]; then
    if ! command -v chromium >/dev/null; then
        as_root=
        [ "$(id -u)" = 0 ] || as_root=sudo
        $as_root apt-get update -qq
        DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends chromium >/dev/null
    fi
    CHROMIUM_BIN=$(command -v chromium)
    export CHROMIUM_BIN
fi

# Dependencies are installed again only after a change of the lock file.
if ! cmp -s package-lock.json node_modules/.installed-lock.json; then
    npm ci --no-audit --no-fund
    cp package-lock.json node_modules/.installed-lock.json
fi

npx tsc --noEmit
npm run --silent build
npx publint --strict
# The path with dist/ is the browser file itself, to be served; only the one without is loaded as a module.
npx attw --pack . --exclude-entrypoints dist/corecast.min.js --no-emoji --format ascii
npx vitest run
