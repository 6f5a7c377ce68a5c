#!/bin/sh
# Profiles the server during a scenario of `vestnik-load run`.
#
# Starts a server on a temporary database, runs the scenario, and prints the top of the profile: by
# perf where it is allowed, else by valgrind's callgrind (instruction counts; the server is then
# some fifty times slower). Files are created in TMPDIR (on /dev/shm a sync costs nothing) and
# removed at the end.
#
#   scripts/profile.sh [OPTION…] [SCENARIO [OPTION OF LOAD RUN…]]     (default: fanout)
#     --with perf|callgrind    the profiler
#     --lines N                lines of the profile (default 50)
#     --calls                  perf: show callers
#     --binary FILE            use this binary instead of building one

. "$(dirname "$0")/load-common.sh"

with=""
lines=50
calls=""
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h) usage; exit 0 ;;
    --with | --lines | --binary) has_value "$@" ;;
    esac
    case $1 in
    --with) with=$2; shift ;;
    --lines) lines=$2; shift ;;
    --calls) calls="--call-graph dwarf,16384" ;;
    --binary) binary=$2; shift ;;
    -*) unknown_option "$1" ;;
    *) break ;;
    esac
    shift
done
[ $# -gt 0 ] || set -- fanout

if [ -z "$with" ]; then
    if command -v perf >/dev/null && perf record -q -o "$dir/probe" true 2>/dev/null; then
        with=perf
    elif command -v valgrind >/dev/null; then
        with=callgrind
    else
        fail "neither perf nor valgrind can be used"
    fi
fi

need_binary
"$binary" load prepare --data "$dir/load.db" --users 1000 >&2

# metrics SCENARIO [OPTION…]: runs the load, and stores its table to be shown below the profile.
metrics() {
    in_reach on_core "$load_core" "$load" run "$@" --addr "$address" --server-pid "$server" \
        >"$dir/metrics" || fail "the scenario failed"
}

case $with in
perf)
    start_vestnik "$dir/load.db"
    # shellcheck disable=SC2086 # it is two words or none
    perf record -q -F 999 $calls -o "$dir/perf.data" -p "$server" 2>"$dir/perf.log" &
    perf=$!
    servers="$servers $perf"
    metrics "$@"
    kill -INT "$perf"
    wait "$perf" 2>/dev/null || true
    perf report -i "$dir/perf.data" --stdio --no-children --percent-limit 0.3 2>/dev/null |
        grep -v -e '^$' -e '^#' | head -n "$lines"
    ;;
callgrind)
    : >"$dir/listening"
    (exec valgrind --tool=callgrind --callgrind-out-file="$dir/callgrind.out" \
        "$binary" serve --data "$dir/load.db" --listen 127.0.0.1:0 --password-iterations 1 \
        >"$dir/listening" 2>"$dir/server.log") &
    server=$!
    servers="$servers $server"
    wait_for "$dir/server.log" grep -q '^listening plain' "$dir/listening"
    address=$(sed -n 's/^listening plain //p' "$dir/listening")
    metrics "$@"
    stop_server
    callgrind_annotate "$dir/callgrind.out" | sed -n '/PROGRAM TOTALS/,$p' | grep -v -e '^$' -e '^--' |
        head -n "$lines"
    ;;
*) fail "--with takes perf or callgrind" ;;
esac
printf '\n'
cat "$dir/metrics"
