#!/bin/sh
# Runs the same load on vestnik, redis-server and mosquitto, and prints the ratios.
#
# Servers that are not installed are skipped. Each server runs on one core, the load generator on
# another; the same generator is used for all (PUBLISH and XADD with `appendfsync always` for Redis,
# QoS 1 for mosquitto, which stores nothing on disk). Every work runs on every server, N times, and
# the medians are printed as a Markdown table. Absolute values drift with the machine, so compare
# ratios within one table only. Files are created in TMPDIR (on /dev/shm a sync costs nothing) and
# removed at the end.
#
#   scripts/compare.sh [OPTION…]
#     --runs N          runs of each work (default 3)
#     --seconds S       measured seconds of each work (default 5)
#     --connections N   idle connections (default 5000)
#     --only NAMES      only these works, separated by commas: fanout-200, fanout-1000,
#                       fanout-200-w1, fanout-200-both, durable-w16, durable-w1, durable-pairs-w16,
#                       durable-pairs-w1, echo, echo-100, rate, idle
#     --binary FILE     use this binary instead of building one
#     --server-core N, --load-core N   the cores (default 0 and 1)

. "$(dirname "$0")/load-common.sh"

runs=3
seconds=5
idle=5000
only=""
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h) usage; exit 0 ;;
    --*) has_value "$@" ;;
    esac
    case $1 in
    --runs) runs=$2 ;;
    --seconds) seconds=$2 ;;
    --connections) idle=$2 ;;
    --only) only=$2 ;;
    --binary) binary=$2 ;;
    --server-core) server_core=$2 ;;
    --load-core) load_core=$2 ;;
    *) say "unknown option $1"; usage >&2; exit 2 ;;
    esac
    shift 2
done

# The works: name, the compared metric, and the options. Durable work on vestnik runs in one chat of
# all 64 (63 notifications each) and in 32 chats of two; the other servers only acknowledge. Idle
# connections come first, while the server's memory is still small.
works() {
    cat <<WORKS
idle             rss_bytes_per_connection idle --connections $idle --source-addresses 4
fanout-200       per_server_cpu_second fanout --members 200 --publishers 4 --window 16
fanout-1000      per_server_cpu_second fanout --members 1000 --publishers 4 --window 16
fanout-200-w1    per_server_cpu_second fanout --members 200 --publishers 4 --window 1
fanout-200-both  per_server_cpu_second fanout --members 200 --publishers 4 --window 16 --api both
durable-w16      per_second durable --connections 64 --window 16
durable-w1       per_second durable --connections 64 --window 1
durable-pairs-w16 per_second durable --connections 64 --window 16 --chat pair --chats 32
durable-pairs-w1 per_second durable --connections 64 --window 1 --chat pair --chats 32
echo             per_server_cpu_second echo --connections 50 --window 16 --payload 0
echo-100         per_server_cpu_second echo --connections 50 --window 16 --payload 100
rate             delivery_us rate --members 200 --rate 20000
WORKS
}

start_redis() {
    next_port
    mkdir -p "$dir/redis"
    (on_core "$server_core" redis-server --port "$port" --bind 127.0.0.1 --dir "$dir/redis" \
        --appendonly yes --appendfsync always --auto-aof-rewrite-percentage 0 --save '' \
        --protected-mode no --maxclients 20000 >"$dir/redis.log" 2>&1) &
    server=$!
    servers="$servers $server"
    wait_for "$dir/redis.log" grep -qi 'ready to accept' "$dir/redis.log"
}

start_mosquitto() {
    next_port
    cat >"$dir/mosquitto.conf" <<CONF
listener $port 127.0.0.1
allow_anonymous true
persistence false
max_inflight_messages 0
max_queued_messages 0
CONF
    (on_core "$server_core" mosquitto -c "$dir/mosquitto.conf" >"$dir/mosquitto.log" 2>&1) &
    server=$!
    servers="$servers $server"
    wait_for "$dir/mosquitto.log" grep -q 'running' "$dir/mosquitto.log"
}

start_ours() {
    rm -f "$dir"/ours.db*
    "$binary" load prepare --data "$dir/ours.db" --users "$users" >/dev/null
    start_vestnik "$dir/ours.db"
}

# one_work SERVER WORK METRIC SCENARIO [OPTION…]: a line "work server value" in $dir/values.
one_work() {
    who=$1 work=$2 figure=$3
    shift 3
    case ",$only," in
    ,, | *",$work,"*) ;;
    *) return 0 ;;
    esac
    case $who in
    redis) speak="--speak redis" ;;
    mosquitto) speak="--speak mqtt" ;;
    *) speak="" ;;
    esac
    case "$who-$work" in
    # The other servers notify nobody of a durable send, so one value serves both of our rows.
    # MQTT's ping has no text.
    redis-*-pairs-* | mosquitto-*-pairs-* | redis-*-both | mosquitto-*-both) return 0 ;;
    mosquitto-echo-100) return 0 ;;
    esac
    say "$who: $*"
    # shellcheck disable=SC2086 # it is two words or none
    load "$@" $speak --seconds "$seconds" --warmup 1 || : >"$dir/fault"
    json=$(cat "$dir/json")
    if [ "$figure" = delivery_us ]; then
        printf '%s %s %s\n' rate-p99 "$who" "$(quantile "$json" delivery_us p99)" >>"$dir/values"
        printf '%s %s %s\n' rate-p99.9 "$who" "$(quantile "$json" delivery_us 'p99\.9')" >>"$dir/values"
    else
        printf '%s %s %s\n' "$work" "$who" "$(field "$json" "$figure")" >>"$dir/values"
    fi
    [ "$(field "$json" client_cpu_share | cut -c1-3)" != 1.0 ] ||
        say "  the load was busy all the time: the figure may be its own"
}

# all_works SERVER
all_works() {
    # Not a pipe: a signal would have to wait for its other end.
    works >"$dir/works"
    while read -r work figure options; do
        # shellcheck disable=SC2086 # the options are words
        one_work "$1" "$work" "$figure" $options </dev/null
    done <"$dir/works"
}

need_binary
users=$((idle > 1000 ? idle : 1000))
: >"$dir/values"
run=1
while [ "$run" -le "$runs" ]; do
    say "run $run of $runs"
    for who in redis mosquitto vestnik; do
        case $who in
        redis) command -v redis-server >/dev/null || { say "redis-server is not installed"; continue; }
            start_redis ;;
        mosquitto) command -v mosquitto >/dev/null || { say "mosquitto is not installed"; continue; }
            start_mosquitto ;;
        vestnik) start_ours ;;
        esac
        all_works "$who"
        stop_server
    done
    run=$((run + 1))
done

# The median of each work and server. A ratio above 1 means that vestnik is better.
sort -k1,1 -k2,2 -k3,3g "$dir/values" | awk '
    function end() { if (n) median[work, who] = n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2; n = 0 }
    { if ($1 != work || $2 != who) { end(); work = $1; who = $2; seen[work] = 1 } v[++n] = $3 }
    function cell(value) { return value == "" ? "-" : sprintf("%d", value) }
    function ratio(work, theirs) {
        if (theirs + 0 <= 0 || median[work, "vestnik"] + 0 <= 0) return "-"
        if (work ~ /^(rate|idle)/) return sprintf("%.2f", theirs / median[work, "vestnik"])
        return sprintf("%.2f", median[work, "vestnik"] / theirs)
    }
    END {
        end()
        print "| work | figure | vestnik | redis | mosquitto | better than redis | than mosquitto |"
        print "| --- | --- | --- | --- | --- | --- | --- |"
        count = split("fanout-200 fanout-1000 fanout-200-w1 fanout-200-both durable-w16 durable-w1 durable-pairs-w16 durable-pairs-w1 echo echo-100 rate-p99 rate-p99.9 idle", order, " ")
        for (i = 1; i <= count; i++) {
            work = order[i]
            if (!(work in seen)) continue
            figure = "per server-CPU-second"
            if (work ~ /^durable/) figure = "per second"
            if (work ~ /^rate/) figure = "us"
            if (work ~ /^idle/) figure = "RSS bytes each"
            base = work
            sub(/-pairs/, "", base)
            sub(/-both/, "", base)
            redis = median[base, "redis"]; mosquitto = median[base, "mosquitto"]
            printf "| %s | %s | %s | %s | %s | %s | %s |\n", work, figure, cell(median[work, "vestnik"]),
                cell(redis), cell(mosquitto), ratio(work, redis), ratio(work, mosquitto)
        }
    }'
[ ! -e "$dir/fault" ] || fail "something did not arrive as it should"
