#!/usr/bin/env bash
# Fuzzes one target of fuzz/fuzz_targets for a number of seconds: scripts/fuzz.sh TARGET SECONDS
#
# Starts from the seeds in fuzz/seeds and the corpus of earlier runs in fuzz/corpus. An input that
# makes the target panic is stored in fuzz/artifacts. `cargo test --test fuzz` runs the same targets
# briefly. Every run adds a line to fuzz/runs.tsv: date, commit, result. On a busy machine its CPU
# seconds say more than the wall-clock seconds.
#
# Needs cargo-fuzz (cargo install cargo-fuzz), but no nightly, because no sanitizer is used: there
# is no unsafe code here, a sanitizer does not see into SQLite, and it would halve the runs.
# Entropic scheduling is off: with this many features it would cost a quarter of the runs.
# A full disk is simulated by a file-size limit, whose signal libFuzzer must not take for a crash.
set -uo pipefail
cd "$(dirname "$0")/../fuzz"
if [ $# -ne 2 ]; then
    sed -n 's/^# //p' "$0" | head -1 >&2
    exit 2
fi
target=$1 seconds=$2
# Longer inputs only repeat what short ones do, and are slower.
case $target in
    service) bytes_max=1024 ;;
    *) bytes_max=4096 ;;
esac
nice -n 10 cargo fuzz build --sanitizer none "$target" || exit
tree=$(git describe --always --dirty 2>/dev/null || echo unknown)
mkdir -p "corpus/$target" "artifacts/$target" logs
log=logs/$target-$(date -u +%Y%m%dT%H%M%SZ).log
echo "the log is fuzz/$log"

program=target/$(rustc -vV | sed -n 's/^host: //p')/release/$target
nice -n 10 "$program" "corpus/$target" "seeds/$target" "-artifact_prefix=artifacts/$target/" \
    -max_total_time="$seconds" -max_len="$bytes_max" -timeout=120 -report_slow_units=60 \
    -rss_limit_mb=2048 -handle_xfsz=0 -entropic=0 -print_final_stats=1 >"$log" 2>&1 &
run=$!
begun=$SECONDS
# CPU seconds of the process, read while it still exists.
cpu=0
spent() { awk '{ printf "%.0f", ($14 + $15) / ticks }' ticks="$(getconf CLK_TCK)" "/proc/$run/stat"; }
# A signal ends the run, and the line is still written.
trap 'kill -INT "$run"' INT TERM
while [ -d "/proc/$run" ]; do
    now=$(spent 2>/dev/null) && cpu=${now:-$cpu}
    sleep 1
done
wait "$run"
outcome=$?
trap - INT TERM

# libFuzzer's final lines, or else its last progress line ("#123  NEW ...").
executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -1)
: "${executions:=$(sed -n 's/^#\([0-9]\{1,\}\).*/\1/p' "$log" | tail -1)}"
: "${executions:=0}"
took=$((SECONDS - begun))
found=none
artifact=$(sed -n 's/.*Test unit written to //p' "$log" | tail -1)
if [ -n "$artifact" ]; then
    found=${artifact##*/}
elif [ "$outcome" -eq 72 ]; then
    found="none, interrupted"
elif [ "$outcome" -ne 0 ]; then
    found="ended with $outcome"
fi
if [ ! -e runs.tsv ]; then
    printf 'end (UTC)\ttree\ttarget\tseconds\tof processor\texecutions\tfound\n' >runs.tsv
fi
printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' \
    "$(date -u +%Y-%m-%dT%H:%MZ)" "$tree" "$target" "$took" "$cpu" "$executions" "$found" | tee -a runs.tsv
exit "$outcome"
