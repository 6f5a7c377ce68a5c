#!/usr/bin/env bash
# Mutation test of the simulation: applies each patch in tests/mutants, which breaks the server in
# one way, and counts the seeds until the simulation fails. Prints a table.
#
#   scripts/mutants.sh [NAME ...]      all of them, or these
#
# Each mutant may take VESTNIK_SIM_SEEDS_MAX seeds (default 1000) and VESTNIK_SIM_SECONDS_MAX
# seconds (default 1800); if one is not found, the script fails. Works on a copy, not on this tree.
# VESTNIK_MUTANTS_TARGET sets the target folder of the builds (default: a new temporary one).
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD
seeds_max=${VESTNIK_SIM_SEEDS_MAX:-1000}
seconds_max=${VESTNIK_SIM_SECONDS_MAX:-1800}
copy=${VESTNIK_MUTANTS_DIR:-$(mktemp -d)}
trap '[ -n "${VESTNIK_MUTANTS_DIR:-}" ] || rm -rf "$copy"' EXIT

names=("$@")
if [ ${#names[@]} -eq 0 ]; then
    for patch in tests/mutants/*.patch; do
        names+=("$(basename "$patch" .patch)")
    done
fi
mkdir -p "$copy"
git ls-files -z | grep -zv '^docs/' | xargs -0 cp --parents -t "$copy"
cd "$copy"
# The simulation needs the library only.
rm -f src/main.rs
sed -i "/^default-run/d" Cargo.toml
export CARGO_TARGET_DIR=${VESTNIK_MUTANTS_TARGET:-$copy/target} RUST_BACKTRACE=0
# As scripts/sim.sh builds it.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
export CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS=true

missed=0
printf '| mutant | what is wrong | seeds | how it shows |\n| --- | --- | ---: | --- |\n'
for name in "${names[@]}"; do
    patch=$here/tests/mutants/$name.patch
    what=$(head -n 1 "$patch")
    if ! patch --quiet --strip=1 --dry-run <"$patch" >/dev/null; then
        printf '| %s | %s | **does not apply** | |\n' "$name" "$what"
        missed=$((missed + 1))
        continue
    fi
    patch --quiet --strip=1 <"$patch"
    if ! nice -n 19 cargo test --release --locked --test sim --no-run >"$copy/build.log" 2>&1; then
        grep -E '^error' -A 6 "$copy/build.log" >&2 || true
        printf '| %s | %s | **does not compile** | |\n' "$name" "$what"
        missed=$((missed + 1))
        patch --quiet --strip=1 --reverse <"$patch"
        continue
    fi
    found=0
    VESTNIK_SIM_SEEDS=0..$seeds_max timeout "$seconds_max" nice -n 19 \
        cargo test --release --locked --test sim every_seed -- --nocapture >"$copy/run.log" 2>&1 ||
        found=$?
    line=$(grep -aE '^seed [0-9]+: ' "$copy/run.log" | head -n 1 | tr -d '\000' || true)
    if [ "$found" = 124 ]; then
        printf '| %s | %s | | the loop never ends (stopped after %s s) |\n' "$name" "$what" "$seconds_max"
    elif [ "$found" != 0 ] && [ -n "$line" ]; then
        seed=$(sed -E 's/^seed ([0-9]+): .*/\1/' <<<"$line")
        shows=$(sed -E 's/^seed [0-9]+: //; s/\|/\//g' <<<"$line" | cut -c 1-90 | iconv -c -t UTF-8)
        printf '| %s | %s | %d | %s |\n' "$name" "$what" "$((seed + 1))" "$shows"
    else
        printf '| %s | %s | **not found** | %s seeds |\n' "$name" "$what" "$seeds_max"
        missed=$((missed + 1))
    fi
    patch --quiet --strip=1 --reverse <"$patch"
done
echo "$((${#names[@]} - missed)) of ${#names[@]} found" >&2
[ "$missed" = 0 ]
