#!/usr/bin/env bash
# Fuzzes one target for so many seconds: scripts/fuzz.sh frames|bodies|service|tls SECONDS
# Starts from the seeds of fuzz/seeds and what earlier runs left in fuzz/corpus. An input that makes
# the target panic is left in fuzz/artifacts; `cargo test --test fuzz` runs the same for a moment.
#
# A full disk is a file-size limit here, whose signal libFuzzer must not take for a crash.
# Needs cargo-fuzz (cargo install cargo-fuzz). The sanitizer is a nightly feature: this uses whatever
# toolchain is the default, and lets a stable one have it.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"
if [ $# -ne 2 ]; then
    sed -n 's/^# //p' "$0" | head -1 >&2
    exit 2
fi
target=$1 seconds=$2
mkdir -p "corpus/$target"
export RUSTC_BOOTSTRAP=1
exec nice -n 10 cargo fuzz run "$target" "corpus/$target" "seeds/$target" -- \
    -max_total_time="$seconds" -timeout=30 -rss_limit_mb=2048 -handle_xfsz=0 -print_final_stats=1
