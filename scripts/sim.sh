#!/usr/bin/env bash
# Runs the simulation over many seeds on all cores, and reports its speed.
#
#   scripts/sim.sh HOURS [FIRST_SEED]     for that many hours
#   scripts/sim.sh FIRST..LAST            these seeds, LAST not included
#
# A seed that fails is printed at once, and the others continue; the script then fails at the end.
# `VESTNIK_SIM_SEED=N cargo test --test sim` runs such a seed again, with its trace.
# VESTNIK_SIM_JOBS processes (default: one per core) share the seeds, VESTNIK_SIM_STEP (default 250)
# at a time. The speed is printed every VESTNIK_SIM_SECONDS seconds (default 60).
set -euo pipefail
cd "$(dirname "$0")/.."
if [ $# -lt 1 ]; then
    echo "usage: scripts/sim.sh HOURS [FIRST_SEED] | FIRST..LAST" >&2
    exit 2
fi
started=$(date +%s)
case $1 in
    *..*) first=${1%..*} last=${1#*..} until= ;;
    *)
        first=${2:-0} last=$((1 << 62))
        until=$(awk -v hours="$1" -v now="$started" 'BEGIN { printf "%d", now + hours * 3600 }')
        ;;
esac
jobs=${VESTNIK_SIM_JOBS:-$(nproc)}
step=${VESTNIK_SIM_STEP:-250}
pause=${VESTNIK_SIM_SECONDS:-60}

# Optimised like a release, but with the assertions of a debug build, and faster to link.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
export CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS=true
cargo test --release --locked --test sim --no-run
built=$(cargo test --release --locked --test sim --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*\/sim-[^"]*\)".*/\1/p' | tail -n 1)

log=$(mktemp -d)
trap 'rm -rf "$log"' EXIT
# A copy of the binary, since the tree may be rebuilt meanwhile.
binary=$log/sim
cp "$built" "$binary"
commit=$(git rev-parse --short HEAD 2>/dev/null || echo "no commit")
git diff --quiet HEAD 2>/dev/null || commit="$commit and changes"
echo "seeds from $first at $commit, by $jobs processes"

# Runs the seeds from $1 to $2 - 1. Counts go to $log/metrics; failing seeds are printed.
run() {
    local status=0
    VESTNIK_SIM_KEEP_GOING=1 RUST_BACKTRACE=0 VESTNIK_SIM_SEEDS="$1..$2" nice -n 19 \
        "$binary" every_seed --nocapture >"$log/$1" 2>&1 || status=$?
    grep -aE '^seed [0-9]+: ' "$log/$1" | cut -c 1-400 || true
    if grep -aE '^COUNTS ' "$log/$1" >>"$log/metrics"; then
        rm "$log/$1"
    else
        echo "the seeds $1..$2 ended with status $status:"
        tail -n 20 "$log/$1"
        echo "COUNTS $(($2 - $1)) $(($2 - $1)) 0 0 0 0 0 0 0 0 0 0 0 0" >>"$log/metrics"
    fi
}

# COUNTS seeds failed either-kind with-power-cuts with-faults turns lives power-cuts failed-calls
#         undone lost either copies simulated-ms
report() {
    [ -s "$log/metrics" ] || return 0
    awk -v seconds="$(($(date +%s) - started))" -v next_seed="$next" '
        { for (i = 2; i <= NF; i++) sum[i] += $i }
        END {
            if (seconds < 1) seconds = 1
            printf "%d seeds up to %d in %d s: %d failed; ", sum[2], next_seed, seconds, sum[3]
            printf "%.1f seeds/s, %.0f simulated hours for each real one; ",
                sum[2] / seconds, sum[15] / 1000 / seconds
            printf "%.0f %% of the seeds had power cuts, %.0f %% disk faults, %.0f %% either; ",
                100 * sum[5] / sum[2], 100 * sum[6] / sum[2], 100 * sum[4] / sum[2]
            printf "%d turns, %d lives, %d power cuts, %d failed calls, %d turns undone, ",
                sum[7], sum[8], sum[9], sum[10], sum[11]
            printf "%d files lost, %d turns of which nobody knew, %d copies compared\n",
                sum[12], sum[13], sum[14]
        }' "$log/metrics"
}

next=$first
reported=$started
while [ "$next" -lt "$last" ] && { [ -z "$until" ] || [ "$(date +%s)" -lt "$until" ]; }; do
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do
        wait -n || true
    done
    end=$((next + step < last ? next + step : last))
    run "$next" "$end" &
    next=$end
    if [ "$(($(date +%s) - reported))" -ge "$pause" ]; then
        report
        reported=$(date +%s)
    fi
done
wait
report
awk '{ seeds += $2; failed += $3; either += $4 }
    END {
        if (failed) exit 1
        if (2 * either < seeds) { print "fewer than half of the seeds had power cuts or faults"; exit 1 }
    }' "$log/metrics"
