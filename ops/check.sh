#!/usr/bin/env bash
# Checks the alert rules and /metrics with promtool. tests/it/monitoring.rs checks that the metrics of the rules and of the
# dashboard exist.
# Needs the server's binary: CORECAST_BIN, or target/release-test/corecast, or the release or debug one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tests/prepare.sh

command -v promtool >/dev/null || { apt-get -o Acquire::Retries=5 update -q && apt-get -o Acquire::Retries=5 install -qy --no-install-recommends prometheus; } >/dev/null 2>&1 || true
if ! command -v promtool >/dev/null; then
    printf '\n*** SKIPPED: ops/check.sh, because promtool is missing here (Debian: apt-get install prometheus) ***\n\n' >&2
    exit 0
fi
bin=$(server_binary)

promtool check rules ops/alerts.yml
promtool test rules ops/alerts-test.yml
for alert in $(sed -n 's/.*- alert: //p' ops/alerts.yml); do
    grep -q "alertname=\"$alert\"" ops/alerts-test.yml || { echo "ops/alerts-test.yml does not test $alert" >&2; exit 1; }
done

dir=$(mktemp -d)
env -i "$bin" serve --listen 127.0.0.1:0 --http 127.0.0.1:0 --shards 2 --pin none --admin-socket "$dir/admin.sock" --log warn 2>"$dir/log" &
server=$!
trap 'kill $server; wait $server || true; rm -r "$dir"' EXIT
until grep -qs 'listening on' "$dir/log"; do
    kill -0 $server || { cat "$dir/log" >&2; exit 1; }
    sleep 0.05
done
address=$(sed -n 's/.*http \([0-9.:]*\)).*/\1/p' "$dir/log")
# Without curl, which may be missing.
exec 3<>"/dev/tcp/${address%:*}/${address#*:}"
printf 'GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n' >&3
sed '1,/^\r$/d' <&3 >"$dir/metrics"
promtool check metrics <"$dir/metrics"

echo "ops: $(grep -c '^# TYPE' "$dir/metrics") metrics, $(grep -c 'alert:' ops/alerts.yml) rules, checked by promtool"
