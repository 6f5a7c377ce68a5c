#!/usr/bin/env bash
# Runs the simulation for so many hours, seed after seed, and says how fast it goes.
#
#   scripts/sim.sh HOURS [FIRST_SEED]
#
# Stops at the first seed that fails and says how to run it again. VESTNIK_SIM_JOBS processes share
# the seeds (default 1); VESTNIK_SIM_STEP seeds are run between two lines of figures (default 1000).
set -euo pipefail
cd "$(dirname "$0")/.."
if [ $# -lt 1 ]; then
    echo "usage: scripts/sim.sh HOURS [FIRST_SEED]" >&2
    exit 2
fi
until=$(awk -v hours="$1" -v now="$(date +%s)" 'BEGIN { printf "%d", now + hours * 3600 }')
next=${2:-0}
jobs=${VESTNIK_SIM_JOBS:-1}
step=${VESTNIK_SIM_STEP:-1000}

# As fast as a release, but with the checks of a debug build, and quicker to link.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
export CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS=true
cargo test --release --locked --test sim --no-run
binary=$(cargo test --release --locked --test sim --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*\/sim-[^"]*\)".*/\1/p' | tail -n 1)

log=$(mktemp -d)
trap 'rm -rf "$log"' EXIT
started=$(date +%s)
seeds=0
while [ "$(date +%s)" -lt "$until" ]; do
    pids=()
    for job in $(seq "$jobs"); do
        VESTNIK_SIM_SEEDS="$next..$((next + step))" nice -n 10 \
            "$binary" every_seed --nocapture >"$log/$job" 2>&1 &
        pids+=($!)
        next=$((next + step))
    done
    for job in $(seq "$jobs"); do
        if ! wait "${pids[$((job - 1))]}"; then
            cat "$log/$job"
            exit 1
        fi
        grep -E '^FIGURES ' "$log/$job" >>"$log/all"
    done
    seeds=$((seeds + jobs * step))
    seconds=$(($(date +%s) - started))
    # FIGURES seeds bad-days turns lives power-cuts failed-calls undone lost either copies simulated-ms
    awk -v seconds="$seconds" -v next_seed="$next" '
        { for (i = 2; i <= NF; i++) sum[i] += $i }
        END {
            printf "%d seeds to %d in %d s: %.1f seeds/s, %.0f simulated hours for each real one; ",
                sum[2], next_seed, seconds, sum[2] / seconds, sum[12] / 1000 / seconds
            printf "%d with power cuts or disk faults; %d turns, %d lives, %d power cuts, ",
                sum[3], sum[4], sum[5], sum[6]
            printf "%d failed calls, %d turns undone, %d files lost, %d turns of which nobody knew, ",
                sum[7], sum[8], sum[9], sum[10]
            printf "%d copies compared\n", sum[11]
        }' "$log/all"
done
