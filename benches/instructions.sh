#!/usr/bin/env bash
# Counts instructions of the data path with callgrind and compares them with benches/instructions.tsv.
#
#   benches/instructions.sh          counts and compares; exit status 1 when a row exceeds its tolerance
#   benches/instructions.sh --store  counts and stores the counts; tolerances and comments stay as they are
#
# A line of the table holds, separated by tabs: the row, the stored count, the tolerance in percent, and a comment.
#
# Counts depend on the compiler, on the locked dependencies, and on the vector instructions of the processor, which
# simd-json, memchr and sha2 select when the program runs. The stored counts are those of x86-64 with AVX2 (valgrind hides
# AVX-512). On another machine, or after a new compiler, store them again on the commit to compare with: check out the
# parent commit, run `benches/instructions.sh --store`, and take the table along to the commit to be judged.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

command -v valgrind >/dev/null || { apt-get -o Acquire::Retries=5 update -q && apt-get -o Acquire::Retries=5 install -qy valgrind; } >/dev/null
# The profile and the packages of the tests, so that no library is built for this alone. A release, linked with LTO, needs
# somewhat fewer.
built=$(cargo bench --workspace --profile release-test --bench instructions --no-run --quiet --message-format=json-render-diagnostics |
    sed -n 's/.*"executable":"\([^"]*instructions-[^"]*\)".*/\1/p')
# The same path and environment everywhere: both lie on the stack, whose alignment changes the cost of copies.
directory=$(mktemp -d /tmp/instructions.XXXXXX)
trap 'rm -r "$directory"' EXIT
cp "$built" "$directory/instructions"

count() { # work turns
    (cd "$directory" && env -i "$(command -v valgrind)" --tool=callgrind --callgrind-out-file=/dev/null \
        ./instructions "$1" "$2" 2>&1) | sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}
row() { # name work turns units-per-turn: the name, and the instructions of one unit, with two decimals
    local once twice
    once=$(count "$2" "$3") && twice=$(count "$2" $((2 * $3))) && [ "$twice" -gt "$once" ] &&
        awk -v name="$1" -v a="$once" -v b="$twice" -v n="$(($3 * $4))" 'BEGIN { printf "%s\t%.2f\n", name, (b - a) / n }'
}

# All at once: counts do not depend on what else runs.
counts=$(
    row 'delivery, 1 publish a turn' publish-1 50 1000 &
    row 'delivery, 256 publishes a turn' publish-256 10 256000 &
    row 'admin line, 0 subscribers' line-0 50 100 &
    row 'admin line, 1 subscriber' line-1 50 100 &
    row 'admin line with history, 0 subscribers' kept-0 50 100 &
    row 'admin line with history, 1 subscriber' kept-1 50 100 &
    row 'ping to pong, 1 a read' ping-1 50 100 &
    row 'ping to pong, 16 a read' ping-16 10 1600 &
    wait
)
counts=$(sort <<<"$counts")
stored=benches/instructions.tsv
if [ "${1:-}" = --store ]; then
    awk -F'\t' -v OFS='\t' 'NR == FNR { count[$1] = $2; next } { $2 = count[$1]; print }' \
        <(printf '%s\n' "$counts") "$stored" >"$directory/table"
    cp "$directory/table" "$stored"
    cat "$stored"
    exit
fi
awk -F'\t' '
    NR == FNR { count[$1] = $2; tolerance[$1] = $3; next }
    !($1 in count) { printf "%-32s is not in benches/instructions.tsv\n", $1; failed = 1; next }
    {
        change = 100 * ($2 / count[$1] - 1)
        verdict = change > tolerance[$1] ? "MORE THAN ALLOWED" : change < -tolerance[$1] ? "fewer: store it" : "ok"
        printf "%-32s %10.2f instructions, stored %10.2f, %+6.2f %% (at most %+.1f %%)  %s\n",
            $1, $2, count[$1], change, tolerance[$1], verdict
        if (change > tolerance[$1]) failed = 1
        delete count[$1]
    }
    END {
        for (row in count) { printf "%-32s was not counted\n", row; failed = 1 }
        exit failed
    }' "$stored" <(printf '%s\n' "$counts")
