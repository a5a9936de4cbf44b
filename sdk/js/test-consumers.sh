#!/usr/bin/env bash
# Applications built from the packed JavaScript client, as its consumers build them, and run: esbuild, webpack, Vite, tsc without the
# DOM's library, ES modules and CommonJS together, and the versions 22 and 24 of Node beside the installed one (Linux on x86-64).
# Then a hidden page in Chromium, which takes some minutes. Installs Chromium and Xvfb by apt if they are missing.
# Needs Node >= 20.11 and the server's binary: CORECAST_BIN, or target/release-test/corecast, or the release or debug one.
set -euo pipefail
# shellcheck source=tests/prepare.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../tests/prepare.sh"
CORECAST_BIN=$(server_binary)
export CORECAST_BIN
cd "$(dirname "${BASH_SOURCE[0]}")"

install_node_modules .
npm run --silent build
(cd test/consumers && install_node_modules .)
packed=$(mktemp -d)
trap 'rm -r "$packed"' EXIT
npm pack --silent --ignore-scripts --pack-destination "$packed" >/dev/null
node test/consumers/run.mjs "$packed"/corecast-client-*.tgz

missing=()
[ -n "${CHROMIUM_BIN:-}" ] || command -v chromium >/dev/null || missing+=(chromium)
command -v Xvfb >/dev/null || missing+=(xvfb)
[ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"
node test/consumers/hidden.mjs
