#!/usr/bin/env bash
# Clients of other authors against a real server: websockets, aiohttp and wsproto of Python, ws and undici of Node, Pusher's
# server libraries for both over HTTP, and a conformance suite that speaks RFC 6455 frame by frame.
#   tests/clients/run.sh [conformance.py --table …]      runs all, or one script with arguments
# Needs the server's binary: CORECAST_BIN, or target/release-test/corecast, or target/release/corecast, or the debug one.
# Installs the clients, in the versions of requirements.txt and package-lock.json, under target/clients.
set -euo pipefail
# shellcheck source=tests/prepare.sh
. "$(dirname "${BASH_SOURCE[0]}")/../prepare.sh"
bin=$(server_binary)
cd "$(dirname "${BASH_SOURCE[0]}")"
here=$PWD
home=$root/target/clients

skipped=0
skip() { # the clients, the missing program
    printf '\n*** SKIPPED: the clients in %s, because %s is missing here ***\n\n' "$1" "$2" >&2
    skipped=$((skipped + 1))
}

scripts=()
if ! command -v python3 >/dev/null; then
    skip Python python3
elif ! has_python; then
    skip Python 'python3 >= 3.10 with venv'
else
    install_python_packages "$home/venv"
    scripts+=(conformance.py client_websockets.py client_aiohttp.py client_wsproto.py pusher_library.py pusher_webhooks.py)
fi
if ! has_node; then
    skip Node 'node or npm'
else
    install_node_modules "$home/node"
    # Node looks for modules in the directory of the script.
    cp scenario.mjs client_ws.mjs client_undici.mjs pusher_library.mjs pusher_webhooks.mjs "$home/node"
    scripts+=(client_ws.mjs client_undici.mjs pusher_library.mjs pusher_webhooks.mjs)
fi
if [ $# -gt 0 ]; then
    scripts=("$1")
    shift
fi

# One server with defaults, and one with the largest --max-message.
dir=$(mktemp -d)
servers=()
stop() {
    [ ${#servers[@]} = 0 ] || kill "${servers[@]}" 2>/dev/null || true
    wait "${servers[@]}" || echo "a server ended with $?" >&2
    rm -rf "$dir"
}
trap stop EXIT
start() { # name, options; sets $url. --max-connections is small enough to cause no warning. No heartbeat comes between replies.
    local name=$1
    shift
    env -i "$bin" serve --listen 127.0.0.1:0 --admin-socket "$dir/$name.sock" --http 127.0.0.1:0 --echo-path /echo --server-ping off --max-connections 50 --log warn "$@" 2>"$dir/$name.log" &
    servers+=($!)
    until grep -q 'listening on' "$dir/$name.log"; do
        kill -0 $! 2>/dev/null || { cat "$dir/$name.log" >&2; exit 1; }
        sleep 0.05
    done
    url=ws://$(sed -n 's/.*listening on \([0-9.:]*\).*/\1/p' "$dir/$name.log")
}
export PYTHONDONTWRITEBYTECODE=1
export CORECAST_TEST_KEY=clients:only-for-these-tests CORECAST_ADMIN_SOCKET=$dir/usual.sock
export CORECAST_TEST_CONFIG=$dir/usual.toml
touch "$CORECAST_TEST_CONFIG"
start usual --shards 2 --key "$CORECAST_TEST_KEY" --config "$CORECAST_TEST_CONFIG"
export CORECAST_URL=$url
CORECAST_HTTP=$(sed -n 's/.*http \([0-9.:]*\)).*/\1/p' "$dir/usual.log")
export CORECAST_HTTP
start big --shards 1 --max-message 16777216
export CORECAST_BIG_URL=$url

failed=0
for script in "${scripts[@]}"; do
    case $script in
        *.py) run=("$home/venv/bin/python3" "$here/$script") ;;
        *.mjs) run=(node "$home/node/$script") ;;
    esac
    SECONDS=0
    if ! timeout 600 "${run[@]}" "$@"; then
        echo "FAILED: $script" >&2
        failed=$((failed + 1))
    fi
    echo "  $script: ${SECONDS} s"
done
if grep -H . "$dir"/*.log | grep -v 'listening on'; then
    echo "FAILED: a server has logged a warning or an error" >&2
    failed=$((failed + 1))
fi
echo "clients: $((${#scripts[@]} - failed)) passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
