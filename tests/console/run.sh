#!/usr/bin/env bash
# Tests of the console in browsers, with a real server and real clients.
#   tests/console/run.sh                   all tests, in headless Chromium; SCREENSHOTS=DIR also saves pictures in DIR
#   tests/console/run.sh firefox webkit    the main paths, in these browsers
# Needs Node >= 20 and the server's binary: CORECAST_BIN, or target/release-test/corecast, or the release or debug one.
# Installs playwright-core and ws under target/console, and the browsers by apt if they are missing.
set -euo pipefail
# shellcheck source=tests/prepare.sh
. "$(dirname "${BASH_SOURCE[0]}")/../prepare.sh"
CORECAST_BIN=$(server_binary)
export CORECAST_BIN
[ -z "${SCREENSHOTS:-}" ] || SCREENSHOTS=$(realpath "$SCREENSHOTS")
cd "$(dirname "${BASH_SOURCE[0]}")"
home=$root/target/console

if ! has_node; then
    echo "SKIPPED: the tests of the console need node and npm" >&2
    exit 0
fi

browsers=$*
for browser in ${browsers:-chromium}; do
    case $browser in
    chromium)
        [ -n "${CHROMIUM_BIN:-}" ] || command -v chromium >/dev/null || install_packages chromium
        export CHROMIUM_BIN=${CHROMIUM_BIN:-$(command -v chromium)}
        ;;
    firefox)
        command -v firefox-esr >/dev/null || install_packages firefox-esr
        export FIREFOX_BIN=firefox-esr
        ;;
    webkit)
        command -v WebKitWebDriver >/dev/null && command -v Xvfb >/dev/null || install_packages webkit2gtk-driver xvfb
        set -- /usr/lib/*/webkit*/MiniBrowser
        export WEBKIT_BIN=$1
        ;;
    *) echo "unknown browser: $browser; chromium, firefox and webkit are known" >&2 && exit 1 ;;
    esac
done
install_node_modules "$home"
# Node looks for modules in the directory of the script.
cp ./*.mjs "$home"
cp ../../src/http/console/page/numbers.js "$home/numbers.mjs"
tests=("$home"/*.test.mjs)
[ -z "$browsers" ] || tests=("$home/browsers.mjs")
BROWSERS=$browsers SCREENSHOTS=${SCREENSHOTS:-} timeout 600 node --test --test-reporter=spec "${tests[@]}"
