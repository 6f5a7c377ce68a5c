# Shared parts of the comparisons with other servers; to be sourced, not run. The script that
# sources it has three functions: `works` prints a line "work figure scenario options" for each
# work; `speaks SERVER WORK` prints the generator's options for a server, or fails where the server
# cannot do the work; `mosquitto_listener` prints the lines of its configuration about $port.

. "$(dirname "$0")/load-common.sh"

runs=3
seconds=5
idle=5000
only=""

# read_options [OPTION…]: those of the head of the script.
read_options() {
    while [ $# -gt 0 ]; do
        case $1 in
        --help | -h) usage; exit 0 ;;
        --*) has_value "$@" ;;
        esac
        case $1 in
        --runs) runs=$2 ;;
        --connections) idle=$2 ;;
        --only) only=$2 ;;
        *) common_option "$@" || unknown_option "$1" ;;
        esac
        shift 2
    done
}

# start_other NAME PATTERN COMMAND…: starts a server that logs PATTERN when it is ready.
start_other() {
    log=$dir/$1.log
    pattern=$2
    shift 2
    (on_core "$server_core" "$@" >"$log" 2>&1) &
    server=$!
    servers="$servers $server"
    wait_for "$log" grep -qi "$pattern" "$log"
}

start_redis() {
    next_port
    mkdir -p "$dir/redis"
    start_other redis 'ready to accept' redis-server --port "$port" --bind 127.0.0.1 \
        --dir "$dir/redis" --appendonly yes --appendfsync always --auto-aof-rewrite-percentage 0 \
        --save '' --protected-mode no --maxclients 20000
}

start_mosquitto() {
    next_port
    {
        printf '%s\n' 'allow_anonymous true' 'persistence false'
        printf '%s\n' 'max_inflight_messages 0' 'max_queued_messages 0'
        mosquitto_listener
    } >"$dir/mosquitto.conf"
    start_other mosquitto running mosquitto -c "$dir/mosquitto.conf"
}

start_nats() {
    next_port
    cat >"$dir/nats.conf" <<CONF
listen: "127.0.0.1:-1"
websocket { listen: "127.0.0.1:$port", no_tls: true, compression: false }
max_connections: 20000
CONF
    start_other nats 'server is ready' nats-server -c "$dir/nats.conf"
}

start_ours() {
    rm -f "$dir"/ours.db*
    "$binary" load prepare --data "$dir/ours.db" --users "$users" >/dev/null
    start_vestnik "$dir/ours.db"
}

is_installed() {
    case $1 in
    redis) program=redis-server ;;
    nats) program=nats-server ;;
    mosquitto) program=mosquitto ;;
    *) return 0 ;;
    esac
    command -v "$program" >/dev/null || { say "$program is not installed"; return 1; }
}

# one_work SERVER WORK METRIC SCENARIO [OPTION…]: a line "work server value" in $dir/values.
one_work() {
    who=$1 work=$2 figure=$3
    shift 3
    case ",$only," in
    ,, | *",$work,"*) ;;
    *) return 0 ;;
    esac
    speak=$(speaks "$who" "$work") || return 0
    say "$who: $*"
    # shellcheck disable=SC2086 # they are words or none
    load "$@" $speak --seconds "$seconds" --warmup 1 || : >"$dir/fault"
    json=$(cat "$dir/json")
    if [ "$figure" = delivery_us ]; then
        printf '%s %s %s\n' "$work-p99" "$who" "$(quantile "$json" delivery_us p99)"
        printf '%s %s %s\n' "$work-p99.9" "$who" "$(quantile "$json" delivery_us 'p99\.9')"
    else
        printf '%s %s %s\n' "$work" "$who" "$(field "$json" "$figure")"
    fi >>"$dir/values"
    [ "$(field "$json" client_cpu_share | cut -c1-3)" != 1.0 ] ||
        say "  the load was busy all the time: the figure may be its own"
}

# measure SERVER…: all works on all servers, and all that $runs times.
measure() {
    need_binary
    users=$((idle > 1000 ? idle : 1000))
    : >"$dir/values"
    # Not a pipe: a signal would have to wait for its other end.
    works >"$dir/works"
    run=1
    while [ "$run" -le "$runs" ]; do
        say "run $run of $runs"
        for who in "$@"; do
            is_installed "$who" || continue
            case $who in
            vestnik | plain) start_ours ;;
            *) "start_$who" ;;
            esac
            while read -r work figure options; do
                # shellcheck disable=SC2086 # the options are words
                one_work "$who" "$work" "$figure" $options </dev/null
            done <"$dir/works"
            stop_server
        done
        run=$((run + 1))
    done
}

# medians: a line "work server value" for each work and server.
medians() {
    sort -k1,1 -k2,2 -k3,3g "$dir/values" | awk '
        function end() {
            if (!n) return
            median = n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
            printf "%s %s %.12g\n", work, who, median
            n = 0
        }
        { if ($1 != work || $2 != who) { end(); work = $1; who = $2 } v[++n] = $3 }
        END { end() }'
}

# table AWK: prints the medians by a program of awk. `median[work, server]` has them, `cell` shows
# one, and a `ratio` above 1 means that vestnik is better.
table() {
    medians | awk '
        function cell(value) { return value == "" ? "-" : sprintf("%d", value) }
        function ratio(ours, theirs, is_less_better) {
            if (theirs + 0 <= 0 || ours + 0 <= 0) return "-"
            return sprintf("%.2f", is_less_better ? theirs / ours : ours / theirs)
        }
        { median[$1, $2] = $3; seen[$1] = 1 }
        '"$1"
    [ ! -e "$dir/fault" ] || fail "something did not arrive as it should"
}
