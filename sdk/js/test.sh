#!/usr/bin/env bash
# All tests of the JavaScript client: types, unit and property tests, the package, a real server, Chromium.
# Needs Node >= 20 and the server's binary: CORECAST_BIN, or target/release-test/corecast, or the release or debug one.
# Installs the development dependencies, and Chromium by apt if it is missing.
set -euo pipefail
# shellcheck source=tests/prepare.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../tests/prepare.sh"
CORECAST_BIN=$(server_binary)
cd "$(dirname "${BASH_SOURCE[0]}")"

if ! has_node; then
    echo "SKIPPED: the tests of sdk/js need node and npm" >&2
    exit 0
fi
[ -n "${CHROMIUM_BIN:-}" ] || command -v chromium >/dev/null || install_packages chromium
export CORECAST_BIN CHROMIUM_BIN=${CHROMIUM_BIN:-$(command -v chromium)}
install_node_modules .

npx tsc --noEmit
npm run --silent build
npx publint --strict
# The path with dist/ is the browser file itself, to be served; only the one without is loaded as a module.
npx attw --pack . --exclude-entrypoints dist/corecast.min.js --no-emoji --format ascii
npx vitest run
