#!/usr/bin/env bash
# Pusher's client libraries, unmodified, against a real server: pusher-js in Node, Chromium, Firefox and WebKit, Laravel Echo, and
# Pysher of Python.
#   tests/pusher/run.sh [tls.test.mjs chromium.test.mjs …]      runs all, or some of the *.test.mjs
# Needs Node >= 20, openssl, and the server's binary: CORECAST_BIN, or target/release-test/corecast, or the release or debug one.
# Installs the libraries, in the versions of package-lock.json and requirements.txt, under target/pusher, and the browsers by apt
# if they are missing. Without Python >= 3.10, Pysher is skipped.
set -euo pipefail
# shellcheck source=tests/prepare.sh
. "$(dirname "${BASH_SOURCE[0]}")/../prepare.sh"
CORECAST_BIN=$(server_binary)
export CORECAST_BIN
cd "$(dirname "${BASH_SOURCE[0]}")"
here=$PWD
home=$root/target/pusher

if ! has_node; then
    echo "SKIPPED: the tests of Pusher clients need node and npm" >&2
    exit 0
fi
tests=("$@")
[ $# -gt 0 ] || tests=(*.test.mjs)

missing=()
for test in "${tests[@]}"; do
    case $test in
        chromium*) [ -n "${CHROMIUM_BIN:-}" ] || command -v chromium >/dev/null || missing+=(chromium) ;;
        firefox*) command -v firefox-esr >/dev/null || missing+=(firefox-esr) ;;
        webkit*) command -v WebKitWebDriver >/dev/null && command -v Xvfb >/dev/null || missing+=(webkit2gtk-driver xvfb) ;;
    esac
done
command -v openssl >/dev/null || missing+=(openssl)
[ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"
export CHROMIUM_BIN=${CHROMIUM_BIN:-chromium} FIREFOX_BIN=firefox-esr
for WEBKIT_BIN in /usr/lib/*/webkit*/MiniBrowser; do export WEBKIT_BIN; done

if has_python; then
    install_python_packages "$home/venv"
    export PYTHON=$home/venv/bin/python3
else
    printf '\n*** SKIPPED: Pysher, because python3 >= 3.10 with venv is missing here ***\n\n' >&2
fi
install_node_modules "$home"
# Node looks for modules in the directory of the script.
rm -rf "$home"/*.mjs "$home/suite"
cp -r ./*.mjs page.html suite ../console/drivers.mjs "$home"

# All files of this run.
TMPDIR=$(mktemp -d)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

# A certificate authority of this run, and a certificate for the servers.
new_key() { # name, options
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$TMPDIR/$1.key" -out "$TMPDIR/$1.pem" "${@:2}" 2>/dev/null
}
new_key ca -x509 -days 2 -subj /CN=corecast-tests
new_key request -subj /CN=localhost
openssl x509 -req -in "$TMPDIR/request.pem" -CA "$TMPDIR/ca.pem" -CAkey "$TMPDIR/ca.key" -days 2 -out "$TMPDIR/server.pem" \
    -extfile <(echo subjectAltName=DNS:localhost) 2>/dev/null
export TLS_CERT=$TMPDIR/server.pem TLS_KEY=$TMPDIR/request.key NODE_EXTRA_CA_CERTS=$TMPDIR/ca.pem WEBSOCKET_CLIENT_CA_BUNDLE=$TMPDIR/ca.pem

export PYSHER_TESTS=$here/pysher_tests.py HELD_SOCKET=$here/held_socket.py PYTHONDONTWRITEBYTECODE=1
cd "$home"
timeout 900 node --test --test-concurrency=4 --test-reporter=spec "${tests[@]}"
