#!/bin/sh
# Measures the cost of TLS compared to plain TCP, as a Markdown table: for new and idle connections,
# and for messages.
#
# Creates a database and a certificate in a temporary directory, and starts a new server for each
# measurement, on one core, with the load generator on another. Every delivery is checked: a message
# that is lost, duplicated or out of order ends the script with exit code 1. Files are removed at
# the end.
#
#   scripts/tls.sh [OPTION…]
#     --connections N   connections that are opened and kept (default 2000)
#     --seconds S       measured seconds of each scenario (default 5)
#     --runs N          runs of each measurement; medians are printed (default 3)
#     --binary FILE     use this binary instead of building one
#     --server-core N, --load-core N   the cores (default 0 and 1)

. "$(dirname "$0")/load-common.sh"

connections=2000
seconds=5
runs=3
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h) usage; exit 0 ;;
    --*) has_value "$@" ;;
    esac
    case $1 in
    --connections) connections=$2 ;;
    --runs) runs=$2 ;;
    *) common_option "$@" || unknown_option "$1" ;;
    esac
    shift 2
done

need_binary
"$binary" cert self-signed localhost 127.0.0.1 --cert "$dir/cert.pem" --key "$dir/key.pem" >/dev/null
"$binary" load prepare --data "$dir/fresh.db" --users "$connections" >&2

# cpu: CPU seconds of the server.
cpu() {
    awk '{ print ($14 + $15) / ticks }' ticks="$(getconf CLK_TCK)" "/proc/$server/stat"
}

# one TRANSPORT SCENARIO [OPTION…]: one measurement; its JSON goes to $dir/json.
one() {
    transport=$1
    shift
    cp "$dir/fresh.db" "$dir/$transport.db"
    if [ "$transport" = TLS ]; then
        start_vestnik "$dir/TLS.db" --tls-listen 127.0.0.1:0 --tls-cert "$dir/cert.pem" \
            --tls-key "$dir/key.pem" --max-unauthorized-per-address 0
        address=$(sed -n 's/^listening tls //p' "$dir/listening")
        set -- "$@" --tls "$dir/cert.pem"
    else
        start_vestnik "$dir/plain.db" --max-unauthorized-per-address 0
    fi
    before=$(cpu)
    load "$@" --seconds "$seconds" || fault=1
    after=$(cpu)
    stop_server
    rm -f "$dir/$transport.db"*
}

median() {
    sort -g | awk '{ value[NR] = $1 } END { print value[int((NR + 1) / 2)] }'
}

fault=0
# again TRANSPORT SCENARIO [OPTION…]: measures several times. Fields go to $dir/FIELD, one line per
# run. The field "cpu" is the server's CPU time in microseconds per connection.
again() {
    rm -f "$dir"/values.*
    run=0
    while [ "$run" -lt "$runs" ]; do
        run=$((run + 1))
        say "measuring over $1: $2, $run of $runs"
        one "$@"
        json=$(cat "$dir/json")
        for name in per_second per_server_cpu_second rss_bytes_per_connection; do
            field "$json" "$name" >>"$dir/values.$name"
        done
        echo "$before $after" | awk '{ print 1e6 * ($2 - $1) / n }' n="$connections" >>"$dir/values.cpu"
    done
}

# row WORDS FIELD: a row of the table with the medians of a field.
row() {
    printf '| %s | %s | %.0f |\n' "$1" "$transport" "$(median <"$dir/values.$2")"
}

echo "| what | transport | median of $runs |"
echo "| --- | --- | ---: |"
for transport in plain TLS; do
    again "$transport" idle --connections "$connections"
    row "memory of one of $connections idle connections, bytes" rss_bytes_per_connection
    row "connections made and logged in, per second" per_second
    row "server CPU for that, µs each" cpu
    again "$transport" echo --connections 50 --window 16
    row "HEARTBEATs of 50 connections, 16 at once, per server-CPU-second" per_server_cpu_second
    again "$transport" fanout --members 200 --publishers 4 --window 16
    row "deliveries to 200 members, per server-CPU-second" per_server_cpu_second
    again "$transport" durable --connections 64 --window 16
    row "sends that are stored, 64 connections, 16 at once, per server-CPU-second" per_server_cpu_second
done
[ "$fault" = 0 ] || fail "something did not arrive as it should"
