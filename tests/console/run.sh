#!/usr/bin/env bash
# Tests of the console in browsers, with a real server and real clients.
#   tests/console/run.sh                   all tests, in headless Chromium; SCREENSHOTS=DIR also saves pictures in DIR
#   tests/console/run.sh firefox webkit    the main paths, in these browsers
# Needs Node >= 20 and the server's binary: CORECAST_BIN, or target/release-test/corecast, or the release or debug one.
# Installs playwright-core and ws under target/console, and the browsers by apt if they are missing.
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
# Installs packages.
install() {
    as_root=
    [ "$(id -u)" = 0 ] || as_root=sudo
    $as_root apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

browsers=$*
for browser in ${browsers:-chromium}; do
    case $browser in
    chromium)
        [ -n "${CHROMIUM_BIN:-}" ] || command -v chromium >/dev/null || install chromium
        export CHROMIUM_BIN=${CHROMIUM_BIN:-$(command -v chromium)}
        ;;
    firefox)
        command -v firefox-esr >/dev/null || install firefox-esr
        export FIREFOX_BIN=firefox-esr
        ;;
    webkit)
        command -v WebKitWebDriver >/dev/null && command -v Xvfb >/dev/null || install webkit2gtk-driver xvfb
        set -- /usr/lib/*/webkit*/MiniBrowser
        export WEBKIT_BIN=$1
        ;;
    *) echo "unknown browser: $browser; chromium, firefox and webkit are known" >&2 && exit 1 ;;
    esac
done
# Keeps what is installed from the same list.
if ! cmp -s package-lock.json "$home/installed.json"; then
    cp package.json package-lock.json "$home"
    (cd "$home" && npm ci --silent --no-audit --no-fund)
    cp package-lock.json "$home/installed.json"
fi
# Node looks for modules in the directory of the script.
cp ./*.mjs "$home"
cp ../../src/http/console/page/numbers.js "$home/numbers.mjs"
tests=("$home"/*.test.mjs)
[ -z "$browsers" ] || tests=("$home/browsers.mjs")
CORECAST_BIN=$bin BROWSERS=$browsers SCREENSHOTS=${SCREENSHOTS:-} timeout 600 node --test --test-reporter=spec "${tests[@]}"
