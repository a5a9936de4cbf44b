#!/usr/bin/env bash
# Tests of the console in headless Chromium, with a real server and real clients.
#   tests/console/run.sh                   SCREENSHOTS=DIR tests/console/run.sh also saves pictures in DIR
# Needs Node >= 20 and the server's binary: CORECAST_BIN, or target/release-test/corecast, or the release or debug one.
# Installs playwright-core under target/console, and Chromium by apt if it is missing.
set -euo pipefail
[ -z "${CORECAST_BIN:-}" ] || CORECAST_BIN=$(realpath "$CORECAST_BIN")
[ -z "${SCREENSHOTS:-}" ] || SCREENSHOTS=$(realpath "$SCREENSHOTS")
cd "$(dirname "${BASH_SOURCE[0]}")"
home=$(realpath -m ../../target/console)
mkdir -p "$home"

bin=
for place in "${CORECAST_BIN:-}" ../../target/{release-test,release,debug}/corecast; do
    if [ -n "$place" ] && [ -x "$place" ]; then
        bin=$(realpath "$place")
        break
    fi
done
[ -n "$bin" ] || { echo "no corecast binary: run cargo build, or say where it is in CORECAST_BIN" >&2; exit 1; }

if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    echo "SKIPPED: the tests of the console need node and npm" >&2
    exit 0
fi
if [ -z "${CHROMIUM_BIN:-}" ]; then
    if ! command -v chromium >/dev/null; then
        as_root=
        [ "$(id -u)" = 0 ] || as_root=sudo
        $as_root apt-get update -qq
        DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends chromium >/dev/null
    fi
    CHROMIUM_BIN=$(command -v chromium)
fi
# Keeps what is installed from the same list.
if ! cmp -s package-lock.json "$home/installed.json"; then
    cp package.json package-lock.json "$home"
    (cd "$home" && npm ci --silent --no-audit --no-fund)
    cp package-lock.json "$home/installed.json"
fi
# Node looks for modules in the directory of the script.
cp ./*.mjs "$home"
cp ../../src/http/console/page/numbers.js "$home/numbers.mjs"
CORECAST_BIN=$bin CHROMIUM_BIN=$CHROMIUM_BIN SCREENSHOTS=${SCREENSHOTS:-} timeout 600 node --test --test-reporter=spec "$home"/*.test.mjs
