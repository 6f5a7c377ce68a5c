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
#     --only NAMES      only these works, separated by commas: fanout-200, fanout-1000, echo, idle
#     --binary FILE     use this binary instead of building one
#     --server-core N, --load-core N   the cores (default 0 and 1)

. "$(dirname "$0")/compare-common.sh"

works() {
    cat <<WORKS
idle        rss_bytes_per_connection idle --connections $idle --source-addresses 4
fanout-200  per_server_cpu_second fanout --members 200 --publishers 4 --window 16
fanout-1000 per_server_cpu_second fanout --members 1000 --publishers 4 --window 16
echo        per_server_cpu_second echo --connections 50 --window 16 --payload 0
WORKS
}

# Version 2.0.11 does not start without a plain TCP listener.
mosquitto_listener() {
    cat <<CONF
listener $((port - 12000)) 127.0.0.1
listener $port 127.0.0.1
protocol websockets
socket_domain ipv4
CONF
}

speaks() {
    case $1 in
    mosquitto) echo --ws --speak mqtt ;;
    nats) echo --ws --speak nats ;;
    vestnik) echo --ws ;;
    esac
}

read_options "$@"
measure mosquitto nats plain vestnik
# shellcheck disable=SC2016 # it is awk
table '
    END {
        print "| work | figure | vestnik | vestnik in the clear | mosquitto | nats-server | of its own in the clear | than mosquitto | than nats-server |"
        print "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
        count = split("fanout-200 fanout-1000 echo idle", order, " ")
        for (i = 1; i <= count; i++) {
            work = order[i]
            if (!(work in seen)) continue
            figure = work == "idle" ? "RSS bytes each" : "per server-CPU-second"
            ours = median[work, "vestnik"]; plain = median[work, "plain"]
            mosquitto = median[work, "mosquitto"]; nats = median[work, "nats"]
            printf "| %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", work, figure, cell(ours),
                cell(plain), cell(mosquitto), cell(nats), ratio(ours, plain, work == "idle"),
                ratio(ours, mosquitto, work == "idle"), ratio(ours, nats, work == "idle")
        }
    }'
