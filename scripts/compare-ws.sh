#!/bin/sh
# Runs the same load on vestnik, mosquitto and nats-server through WebSockets, and on vestnik over
# plain TCP, and prints the ratios.
#
# Servers that are not installed are skipped. Each server runs on one core, the load generator on
# another; the same generator is used for all (QoS 1 for mosquitto and `verbose` for nats-server, so
# that each send is acknowledged; these two store nothing, vestnik does). Every work runs on every
# server, N times, and the medians are printed as a Markdown table. Compare ratios within one table
# only. Files are created in TMPDIR and removed at the end.
#
#   scripts/compare-ws.sh [OPTION…]
#     --runs N          runs of each work (default 3)
#     --seconds S       measured seconds of each work (default 5)
#     --connections N   idle connections (default 5000)
#     --binary FILE     use this binary instead of building one
#     --server-core N, --load-core N   the cores (default 0 and 1)

. "$(dirname "$0")/load-common.sh"

runs=3
seconds=5
idle=5000
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h) usage; exit 0 ;;
    --*) has_value "$@" ;;
    esac
    case $1 in
    --runs) runs=$2 ;;
    --seconds) seconds=$2 ;;
    --connections) idle=$2 ;;
    --binary) binary=$2 ;;
    --server-core) server_core=$2 ;;
    --load-core) load_core=$2 ;;
    *) say "unknown option $1"; usage >&2; exit 2 ;;
    esac
    shift 2
done

works() {
    cat <<WORKS
idle        rss_bytes_per_connection idle --connections $idle --source-addresses 4
fanout-200  per_server_cpu_second fanout --members 200 --publishers 4 --window 16
fanout-1000 per_server_cpu_second fanout --members 1000 --publishers 4 --window 16
echo        per_server_cpu_second echo --connections 50 --window 16 --payload 0
WORKS
}

# Version 2.0.11 does not start without a plain TCP listener.
start_mosquitto() {
    next_port
    cat >"$dir/mosquitto.conf" <<CONF
allow_anonymous true
persistence false
max_inflight_messages 0
max_queued_messages 0
listener $((port + 12001)) 127.0.0.1
listener $port 127.0.0.1
protocol websockets
socket_domain ipv4
CONF
    (on_core "$server_core" mosquitto -c "$dir/mosquitto.conf" >"$dir/mosquitto.log" 2>&1) &
    server=$!
    servers="$servers $server"
    wait_for "$dir/mosquitto.log" grep -q 'running' "$dir/mosquitto.log"
}

start_nats() {
    next_port
    cat >"$dir/nats.conf" <<CONF
listen: "127.0.0.1:-1"
websocket { listen: "127.0.0.1:$port", no_tls: true, compression: false }
max_connections: 20000
CONF
    (on_core "$server_core" nats-server -c "$dir/nats.conf" >"$dir/nats.log" 2>&1) &
    server=$!
    servers="$servers $server"
    wait_for "$dir/nats.log" grep -q 'Server is ready' "$dir/nats.log"
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
    case $who in
    mosquitto) how="--ws --speak mqtt" ;;
    nats) how="--ws --speak nats" ;;
    vestnik) how="--ws" ;;
    plain) how="" ;;
    esac
    say "$who: $*"
    # shellcheck disable=SC2086 # they are words or none
    load "$@" $how --seconds "$seconds" --warmup 1 || : >"$dir/fault"
    printf '%s %s %s\n' "$work" "$who" "$(field "$(cat "$dir/json")" "$figure")" >>"$dir/values"
}

need_binary
users=$((idle > 1000 ? idle : 1000))
: >"$dir/values"
works >"$dir/works"
run=1
while [ "$run" -le "$runs" ]; do
    say "run $run of $runs"
    for who in mosquitto nats plain vestnik; do
        case $who in
        mosquitto) command -v mosquitto >/dev/null || { say "mosquitto is not installed"; continue; }
            start_mosquitto ;;
        nats) command -v nats-server >/dev/null || { say "nats-server is not installed"; continue; }
            start_nats ;;
        *) start_ours ;;
        esac
        while read -r work figure options; do
            # shellcheck disable=SC2086 # the options are words
            one_work "$who" "$work" "$figure" $options </dev/null
        done <"$dir/works"
        stop_server
    done
    run=$((run + 1))
done

# The median of each work and server. A ratio above 1 means that vestnik is better.
sort -k1,1 -k2,2 -k3,3g "$dir/values" | awk '
    function end() { if (n) median[work, who] = n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2; n = 0 }
    { if ($1 != work || $2 != who) { end(); work = $1; who = $2 } v[++n] = $3 }
    function cell(value) { return value == "" ? "-" : sprintf("%d", value) }
    function ratio(work, theirs, ours) {
        if (theirs + 0 <= 0 || ours + 0 <= 0) return "-"
        return sprintf("%.2f", work == "idle" ? theirs / ours : ours / theirs)
    }
    END {
        end()
        print "| work | figure | vestnik | vestnik in the clear | mosquitto | nats-server | of its own in the clear | than mosquitto | than nats-server |"
        print "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
        count = split("fanout-200 fanout-1000 echo idle", order, " ")
        for (i = 1; i <= count; i++) {
            work = order[i]
            figure = work == "idle" ? "RSS bytes each" : "per server-CPU-second"
            ours = median[work, "vestnik"]
            printf "| %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", work, figure, cell(ours),
                cell(median[work, "plain"]), cell(median[work, "mosquitto"]), cell(median[work, "nats"]),
                ratio(work, median[work, "plain"], ours), ratio(work, median[work, "mosquitto"], ours),
                ratio(work, median[work, "nats"], ours)
        }
    }'
[ ! -e "$dir/fault" ] || fail "something did not arrive as it should"
