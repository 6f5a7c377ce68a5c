#!/bin/sh
# Measures the server on this machine: every scenario of `vestnik-load run`, as a Markdown table.
#
# Creates a database with users and stored messages, starts the server on one core and the load
# generator on another, runs the scenarios one after the other, and prints a table on standard
# output; progress goes to standard error. Every delivery is checked: a message that is lost,
# duplicated, damaged or out of order ends the script with exit code 1. Files are created in TMPDIR
# (on /dev/shm a sync costs nothing) and removed at the end.
#
#   scripts/load.sh [OPTION…]
#     --seconds S       measured seconds of each scenario (default 10)
#     --connections N   idle connections (default 10000, or what the open-file limit allows)
#     --messages N      stored messages for the history scenario (default 100000)
#     --api VERSION     0.1, 1.0 or both (default 1.0)
#     --only NAMES      only these scenarios, separated by commas
#     --binary FILE     use this binary instead of building one
#     --server-core N, --load-core N   the cores (default 0 and 1)

. "$(dirname "$0")/load-common.sh"

seconds=10
idle=10000
messages=100000
api=1.0
only=""
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h) usage; exit 0 ;;
    --*) has_value "$@" ;;
    esac
    case $1 in
    --connections) idle=$2 ;;
    --messages) messages=$2 ;;
    --api) api=$2 ;;
    --only) only=$2 ;;
    *) common_option "$@" || unknown_option "$1" ;;
    esac
    shift 2
done

need_binary
files=$(ulimit -n)
if [ "$files" != unlimited ] && [ "$idle" -gt $((files - 200)) ]; then
    idle=$((files - 200))
    say "the open-file limit allows $idle idle connections"
fi

# wanted NAME: whether --only selects this scenario.
wanted() {
    case ",$only," in
    ,, | *",$1,"*) return 0 ;;
    *) return 1 ;;
    esac
}

# three JSON GROUP: p50, p99 and p99.9 of a group, in milliseconds.
three() {
    for name in p50 p99 p99.9; do
        quantile "$1" "$2" "$name"
    done | awk '{ text = text (NR > 1 ? " / " : "") sprintf("%.2f", $1 / 1000) } END { print text }'
}

# measure SCENARIO [OPTION…]: one line of the table for each measurement of the scenario.
measure() {
    wanted "$1" || return 0
    say "measuring: $*"
    load "$@" --api "$api" --seconds "$seconds" || fault=1
    while read -r json; do
        name=$(printf '%s' "$json" | sed 's/.*"scenario":"\([^"]*\)".*/\1/')
        words=$(printf '%s' "$json" | sed 's/.*"words":"\([^"]*\)".*/\1/')
        unit=$(printf '%s' "$json" | sed 's/.*"unit":"\([^"]*\)".*/\1/')
        per_second=$(field "$json" per_second)
        per_cpu=$(field "$json" per_server_cpu_second)
        cpu=$(field "$json" server_cpu_seconds)
        measured=$(field "$json" seconds)
        rss=$(field "$json" server_rss_bytes)
        client=$(field "$json" client_cpu_share)
        each=""
        [ "$name" = idle ] && each=", $(field "$json" rss_bytes_per_connection | cut -d. -f1) bytes each"
        printf '%s\n' "$per_second ${per_cpu:-0} $cpu $measured $rss $client" |
            awk -v name="$name" -v words="$words$each" -v unit="$unit" \
                -v answer="$(three "$json" answer_us)" -v delivery="$(three "$json" delivery_us)" '{
                    per_cpu = $2 > 0 ? sprintf("%d", $2) : ""
                    printf "| %s | %s | %d %s | %s | %s | %s | %d %% | %.1f | %d %% |\n",
                        name, words, $1, unit, per_cpu, answer, delivery,
                        100 * $3 / $4, $5 / 1048576, 100 * $6
                }'
    done <"$dir/json"
}

fault=0
users=$((idle > 1000 ? idle : 1000))
say "preparing $users users"
"$binary" load prepare --data "$dir/idle.db" --users "$users" >&2
"$binary" load prepare --data "$dir/load.db" --users 1000 >&2
"$binary" load prepare --data "$dir/load.db" --users 4 --chat stored --messages "$messages" >&2

echo "| scenario | sizes | per second | per server-CPU-second | answer p50 / p99 / p99.9 ms | delivery p50 / p99 / p99.9 ms | server CPU | server RSS MiB | client CPU |"
echo "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"

if wanted idle; then
    # A new server: memory left by other scenarios would hide the cost of connections.
    start_vestnik "$dir/idle.db"
    measure idle --connections "$idle" --source-addresses 4
    stop_server
fi
start_vestnik "$dir/load.db"
measure fanout --members 200 --publishers 4 --window 16
measure fanout --members 1000 --publishers 4 --window 16
measure fanout --members 200 --publishers 4 --window 1
measure rate --members 200 --rate 20000
measure durable --connections 64 --window 16
measure durable --connections 64 --window 1
if [ "$api" != 0.1 ]; then
    # Chats of two: the cost of a send with minimal fan-out.
    measure durable --connections 64 --window 16 --chat pair --chats 32
fi
measure echo --connections 50 --window 16
measure history --connections 4 --chat stored --users 4
measure login
measure mixed
stop_server
[ "$fault" = 0 ] || fail "something did not arrive as it should"
