# Shared parts of the load scripts; to be sourced, not run. Creates a temporary directory ($dir),
# which is removed when the script ends; servers that the script started are stopped.

set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
dir=$(mktemp -d "${TMPDIR:-/tmp}/vestnik-load.XXXXXX")
servers=""
running=""

# Ends what was started, and takes the directory away.
clean_up() {
    for pid in $running $servers; do
        kill "$pid" 2>/dev/null || true
    done
    for pid in $running $servers; do
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$dir"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# in_reach COMMAND…: runs it so that a signal ends the script at once, not when the command is done.
in_reach() {
    "$@" &
    running=$!
    status=0
    wait "$running" || status=$?
    running=""
    return "$status"
}

say() {
    printf '%s\n' "$*" >&2
}

fail() {
    say "$(basename "$0"): $*"
    exit 1
}

# has_value OPTION [VALUE…]: ends when nothing stands behind an option that takes a value.
has_value() {
    [ $# -ge 2 ] || {
        say "$(basename "$0"): $1 needs a value"
        exit 2
    }
}

# Prints the comment at the head of the script, which is its help.
usage() {
    sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
}

# common_option OPTION VALUE: takes an option that every script has; fails for others.
common_option() {
    case $1 in
    --seconds) seconds=$2 ;;
    --binary) binary=$2 ;;
    --server-core) server_core=$2 ;;
    --load-core) load_core=$2 ;;
    *) return 1 ;;
    esac
}

# unknown_option OPTION: ends with the help.
unknown_option() {
    say "unknown option $1"
    usage >&2
    exit 2
}

# The core of the server, and that of the load; without two cores nothing is pinned.
server_core=0
load_core=1
on_core() {
    core=$1
    shift
    if command -v taskset >/dev/null && [ "$(nproc)" -gt 1 ]; then
        exec taskset -c "$core" "$@"
    fi
    exec "$@"
}

# Chooses a free port ($port, $address) for a server that cannot report its own. It is below the
# range of outgoing connections.
port=$((20000 + $$ % 12000))
next_port() {
    port=$((port + 1))
    address=127.0.0.1:$port
}

# Builds the server and the load generator, unless --binary names a server; the load generator is
# then expected next to it.
binary=""
load=""
need_binary() {
    if [ -z "$binary" ]; then
        say "building"
        (cd "$root" && cargo build --release --quiet)
        binary=$(cd "$root" && cargo metadata --format-version 1 --no-deps |
            sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')/release/vestnik
    fi
    load=${binary%/*}/vestnik-load
    [ -x "$binary" ] || fail "$binary is no program"
    [ -x "$load" ] || fail "$load is no program: cargo build --release makes it"
    # Raise the limit of open files: each connection is one.
    ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
}

# start_vestnik FILE [OPTION…]: serves a data file; sets $server and $address.
# One round of PBKDF2: otherwise a login would rehash the load users' cheap passwords.
start_vestnik() {
    file=$1
    shift
    : >"$dir/listening"
    (on_core "$server_core" "$binary" serve --data "$file" --listen 127.0.0.1:0 \
        --password-iterations 1 --user-bytes-per-day 0 "$@" >"$dir/listening" 2>"$dir/server.log") &
    server=$!
    servers="$servers $server"
    wait_for "$dir/server.log" grep -q '^listening plain' "$dir/listening"
    address=$(sed -n 's/^listening plain //p' "$dir/listening")
    # At first it processes the changes that the preparation has made.
    sleep 1
}

# wait_for LOG COMMAND…: waits until the command succeeds, ten seconds at most.
wait_for() {
    log=$1
    shift
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        if [ "$tries" -gt 100 ] || ! kill -0 "$server" 2>/dev/null; then
            cat "$log" >&2
            fail "the server does not start"
        fi
        sleep 0.1
    done
}

# stop_server: stops the server that was started last.
stop_server() {
    kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    rest=""
    for pid in $servers; do
        [ "$pid" = "$server" ] || rest="$rest $pid"
    done
    servers=$rest
}

# load SCENARIO [OPTION…]: one run against $server at $address; its JSON goes to $dir/json, its
# standard error to $dir/load.log, which is shown when it finds a fault.
load() {
    if ! in_reach on_core "$load_core" "$load" run "$@" --addr "$address" \
        --server-pid "$server" --json >"$dir/json" 2>"$dir/load.log"; then
        tail -n 1 "$dir/load.log" >&2
        return 1
    fi
}

# field JSON NAME: a number of the object, empty when it is null.
field() {
    printf '%s\n' "$1" | sed -n "s/.*\"$2\":\\([0-9.-]*\\)[,}].*/\\1/p"
}

# quantile JSON GROUP NAME: a quantile of a group, in microseconds, empty when there is none.
quantile() {
    printf '%s\n' "$1" | sed -n "s/.*\"$2\":{[^}]*\"$3\":\\([0-9.]*\\)[,}].*/\\1/p"
}
