#!/bin/sh
# Counts the instructions of each part of a message's way, as a Markdown table.
#
# The counts do not depend on the machine's load and hardly differ between runs. valgrind's
# callgrind runs each body of `cargo bench -- times` N times and 2 N times; the difference is the
# body's alone. Instructions of the kernel are not counted. Temporary files are removed at the end.
#
#   scripts/instructions.sh [OPTION…] [BODY…]      (default: all bodies)
#     --profile       also list the most expensive functions of each body
#     --binary FILE   use this bench binary instead of building one

# Syncs are not counted, so the files can be in memory.
[ ! -w /dev/shm ] || TMPDIR=${TMPDIR:-/dev/shm}
. "$(dirname "$0")/load-common.sh"
export VESTNIK_BENCH_FOLDER="$dir"

profile=""
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h) usage; exit 0 ;;
    --profile) profile=yes ;;
    --binary) has_value "$@"; binary=$2; shift ;;
    -*) unknown_option "$1" ;;
    *) break ;;
    esac
    shift
done
[ $# -gt 0 ] || set -- frame request echo delivery row bare-row send-2 send-200
command -v valgrind >/dev/null || fail "valgrind is not installed"
if [ -z "$binary" ]; then
    say "building"
    binary=$(cd "$root" && cargo bench --bench bench --no-run 2>&1 |
        sed -n 's/.*Executable.*(\(.*\))$/\1/p')
    [ -n "$binary" ] || fail "the benches do not build: cargo bench --no-run says why"
    case $binary in /*) ;; *) binary=$root/$binary ;; esac
fi

# count BODY TIMES: instructions and units, in $instructions and $units.
count() {
    in_reach valgrind --tool=callgrind --callgrind-out-file="$dir/$1.$2" \
        "$binary" --bench times "$1" "$2" >"$dir/units" 2>"$dir/log" || { cat "$dir/log" >&2; fail "$1 failed"; }
    instructions=$(sed -n 's/.*Collected : \([0-9]*\).*/\1/p' "$dir/log")
    units=$(sed -n 's/.*: \([0-9]*\) units$/\1/p' "$dir/units")
}

# unit BODY: the unit that is counted, and the number of runs of the body.
unit() {
    case $1 in
    frame) unit="frame found"; times=50 ;;
    request) unit="SEND_CHAT_MSG found and decoded"; times=50 ;;
    echo) unit="HEARTBEAT in a turn of 128"; times=200 ;;
    delivery) unit="delivery: staged, released, assembled, taken"; times=50 ;;
    row) unit="row stored, 64 a commit, commit included"; times=100 ;;
    bare-row) unit="the same by bare SQLite"; times=100 ;;
    send-2) unit="send in a turn of 64, two members there"; times=50 ;;
    send-200) unit="send in a turn of 64, 200 members there"; times=50 ;;
    *) fail "no body $1" ;;
    esac
}

echo "| of | instructions |"
echo "| --- | --- |"
for body in "$@"; do
    unit "$body"
    say "counting: $body"
    count "$body" "$times"
    few=$instructions few_units=$units
    count "$body" $((2 * times))
    awk -v unit="$unit" -v many="$instructions" -v few="$few" -v units=$((units - few_units)) \
        'BEGIN { printf "| %s | %.0f |\n", unit, (many - few) / units }'
    if [ -n "$profile" ]; then
        callgrind_annotate "$dir/$body.$((2 * times))" 2>/dev/null | grep -E '^ *[0-9,]+ \(' | head -n 25 >&2
    fi
done
