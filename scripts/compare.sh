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

. "$(dirname "$0")/compare-common.sh"

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

mosquitto_listener() {
    echo "listener $port 127.0.0.1"
}

speaks() {
    case "$1-$2" in
    # The other servers notify nobody of a durable send, so one value serves both of our rows.
    # MQTT's ping has no text.
    redis-*-pairs-* | mosquitto-*-pairs-* | redis-*-both | mosquitto-*-both) return 1 ;;
    mosquitto-echo-100) return 1 ;;
    redis-*) echo --speak redis ;;
    mosquitto-*) echo --speak mqtt ;;
    esac
}

read_options "$@"
measure redis mosquitto vestnik
# shellcheck disable=SC2016 # it is awk
table '
    END {
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
            ours = median[work, "vestnik"]; is_less_better = work ~ /^(rate|idle)/
            redis = median[base, "redis"]; mosquitto = median[base, "mosquitto"]
            printf "| %s | %s | %s | %s | %s | %s | %s |\n", work, figure, cell(ours), cell(redis),
                cell(mosquitto), ratio(ours, redis, is_less_better),
                ratio(ours, mosquitto, is_less_better)
        }
    }'
