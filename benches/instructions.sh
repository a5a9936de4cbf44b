#!/usr/bin/env bash
# Instructions per delivery and per ping, by callgrind, against benches/instructions.tsv.
#   benches/instructions.sh          counts and compares: exit 1 beyond the tolerance
#   benches/instructions.sh --store  counts and stores
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
TOLERANCE_PERCENT=5

command -v valgrind >/dev/null || { apt-get update -q && apt-get install -qy valgrind; } >/dev/null
# The profile of the tests, so that nothing is built for this alone. A release, linked with LTO, needs somewhat fewer.
binary=$(cargo bench --profile release-test --bench instructions --no-run --quiet --message-format=json-render-diagnostics |
    sed -n 's/.*"executable":"\([^"]*instructions-[^"]*\)".*/\1/p')

count() { # what turns
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$binary" "$1" "$2" 2>&1 |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}
per() { # what turns units-per-turn: instructions of one unit, two decimals
    local once twice
    once=$(count "$1" "$2")
    twice=$(count "$1" $((2 * $2)))
    awk -v a="$once" -v b="$twice" -v n="$(($2 * $3))" 'BEGIN { printf "%.2f", (b - a) / n }'
}

counts=$(
    printf 'delivery, 1 publish a turn\t%s\n' "$(per publish-1 50 1000)"
    printf 'delivery, 256 publishes a turn\t%s\n' "$(per publish-256 10 256000)"
    printf 'admin line, nobody subscribed\t%s\n' "$(per line 50 100)"
    printf 'ping to pong, one a read\t%s\n' "$(per ping-1 50 100)"
    printf 'ping to pong, 16 a read\t%s\n' "$(per ping-16 10 1600)"
)
stored=benches/instructions.tsv
if [ "${1:-}" = --store ]; then
    printf '%s\n' "$counts" | tee "$stored"
    exit
fi
awk -F'\t' -v tolerance="$TOLERANCE_PERCENT" '
    NR == FNR { stored[$1] = $2; next }
    {
        change = 100 * ($2 / stored[$1] - 1)
        verdict = change > tolerance ? "MORE THAN BEFORE" : change < -tolerance ? "less: store it" : "ok"
        printf "%-32s %10.2f instructions, stored %10.2f, %+6.1f %%  %s\n", $1, $2, stored[$1], change, verdict
        if (change > tolerance) failed = 1
    }
    END { exit failed }' "$stored" <(printf '%s\n' "$counts")
