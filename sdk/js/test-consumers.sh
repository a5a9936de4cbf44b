#!/usr/bin/env bash
# Applications built from the packed JavaScript client, as its consumers build them, and run: esbuild, webpack, Vite, tsc without the
# DOM's library, ES modules and CommonJS together, and the versions 22 and 24 of Node beside the installed one (Linux on x86-64).
# Then a hidden page in Chromium, which takes some minutes. Installs Chromium and Xvfb by apt if they are missing.
# Needs Node >= 20.11 and the server's binary: CORECAST_BIN, target/release/corecast or target/debug/corecast.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
for place in "${CORECAST_BIN:-}" ../../target/release/corecast ../../target/debug/corecast; do
    if [ -n "$place" ] && [ -x "$place" ]; then
        CORECAST_BIN=$(realpath "$place")
        export CORECAST_BIN
        break
    fi
done
[ -x "${CORECAST_BIN:-}" ] || { echo "no corecast binary: run cargo build, or set CORECAST_BIN to its path" >&2; exit 1; }

install() { # Dependencies are installed again only after a change of the lock file.
    if ! cmp -s package-lock.json node_modules/.installed-lock.json; then
        npm ci --no-audit --no-fund
        cp package-lock.json node_modules/.installed-lock.json
    fi
}
install
npm run --silent build
(cd test/consumers && install)
packed=$(mktemp -d)
trap 'rm -r "$packed"' EXIT
npm pack --silent --ignore-scripts --pack-destination "$packed" >/dev/null
node test/consumers/run.mjs "$packed"/corecast-client-*.tgz

missing=()
[ -n "${CHROMIUM_BIN:-}" ] || command -v chromium >/dev/null || missing+=(chromium)
command -v Xvfb >/dev/null || missing+=(xvfb)
if [ ${#missing[@]} -gt 0 ]; then
    as_root=
    [ "$(id -u)" = 0 ] || as_root=sudo
    $as_root apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
node test/consumers/hidden.mjs
