#!/usr/bin/env python3
"""Checks that the time of `bad-credentials` does not reveal whether a user exists or is disabled.

Starts a server on a fresh database, tries wrong passwords for an existing, an unknown and a
disabled user in random order, and compares the three samples in pairs: as a whole (Mann-Whitney U,
two sided), and try by try (sign test), which other load on the machine affects less. A fourth
sample is a control: passwords that are too long are rejected without hashing, so it must differ.

    scripts/timing-credentials.py [--binary target/release/vestnik] [--tries 200] [--rounds 20000]

Fewer rounds make the check more sensitive, since the rest is then a larger part of the time.
Exit code 0: not distinguishable. 1: distinguishable, or the control was not. By chance about one
run in 150 fails.

Tries are spread over loopback addresses, so that the rate limit of failed logins does not answer.
"""

import argparse
import itertools
import math
import random
import statistics
import sys
import tempfile
import time

from harness import Connection, Server, default_binary, frame, text
from purpose.wire import DECLINED, LOGIN

ADDRESSES = 250
# Distinguishable when less likely than this by chance; three pairs are compared.
SIGNIFICANCE = 0.001


def failed_login_seconds(address, source, login, password):
    """The time from LOGIN to its `bad-credentials`, in seconds."""
    connection = Connection(address, source=source)
    request = frame(LOGIN, 2, text(login) + text(password))
    begun = time.perf_counter()
    connection.send(request)
    purpose, body = connection.answer(2)
    taken = time.perf_counter() - begun
    connection.close()
    if purpose != DECLINED or not body.startswith(b"bad-credentials:"):
        raise SystemExit(f"expected bad-credentials, got {purpose:#x} {body[:80]!r}")
    return taken


def measure(address, tries):
    """Seconds by kind, the kinds in random order so that drift hits all alike."""
    kinds = {
        "existing": ("anna", "wrong password"),
        "unknown": ("nobody", "wrong password"),
        "disabled": ("boris", "wrong password"),
        "control": ("anna", "x" * 257),
    }
    seconds = {kind: [] for kind in kinds}
    for attempt in range(tries):
        source = f"127.0.0.{2 + attempt % ADDRESSES}"
        for kind in random.sample(list(kinds), len(kinds)):
            seconds[kind].append(failed_login_seconds(address, source, *kinds[kind]))
    return seconds


def mann_whitney(left, right):
    """Chance that a left value is greater than a right one, and the two-sided p of that."""
    ranked = sorted([(value, 0) for value in left] + [(value, 1) for value in right])
    rank_sum, ties, index = 0.0, 0, 0
    while index < len(ranked):
        end = index
        while end < len(ranked) and ranked[end][0] == ranked[index][0]:
            end += 1
        rank = (index + 1 + end) / 2
        rank_sum += rank * sum(1 for _, side in ranked[index:end] if side == 0)
        ties += (end - index) ** 3 - (end - index)
        index = end
    n, m = len(left), len(right)
    total = n + m
    u = rank_sum - n * (n + 1) / 2
    variance = n * m / 12 * ((total + 1) - ties / (total * (total - 1)))
    z = (u - n * m / 2) / math.sqrt(variance) if variance > 0 else 0.0
    return u / (n * m), math.erfc(abs(z) / math.sqrt(2))


def sign_test(left, right):
    """The median of what a left value takes longer than the right one of its round, and the
    two-sided p of the signs of that."""
    differences = [one - other for one, other in zip(left, right) if one != other]
    longer = sum(1 for difference in differences if difference > 0)
    tail = min(longer, len(differences) - longer)
    ways = sum(math.comb(len(differences), count) for count in range(tail + 1))
    p = min(1.0, 2 * ways / 2 ** len(differences))
    return statistics.median(differences), p


def check(seconds):
    """Prints the comparison; whether all is as it should be."""
    for kind, sample in seconds.items():
        spread = statistics.quantiles(sample, n=20)
        print(
            f"{kind:9} {len(sample)} tries: median {1e3 * statistics.median(sample):8.3f} ms,"
            f" 5% {1e3 * spread[0]:8.3f}, 95% {1e3 * spread[-1]:8.3f}"
        )
    good = True
    for left, right in itertools.combinations(["existing", "unknown", "disabled"], 2):
        chance, p = mann_whitney(seconds[left], seconds[right])
        longer, p_signs = sign_test(seconds[left], seconds[right])
        is_distinct = min(p, p_signs) < SIGNIFICANCE
        good &= not is_distinct
        verdict = "DISTINGUISHABLE" if is_distinct else "not distinguishable"
        print(
            f"{left} / {right}: P(slower) {chance:.3f}, p {p:.4f}; try by try"
            f" {1e3 * longer:+.3f} ms, p {p_signs:.4f}: {verdict}"
        )
    _, p = mann_whitney(seconds["existing"], seconds["control"])
    if p >= SIGNIFICANCE:
        print("the control was not distinguishable: this check sees nothing")
        good = False
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default=default_binary())
    parser.add_argument("--tries", type=int, default=200, help="of each kind")
    parser.add_argument("--rounds", type=int, default=20_000, help="of PBKDF2")
    options = parser.parse_args()
    # Two kinds share a login, and a bucket holds five failures per login and address.
    if not 20 <= options.tries <= 2 * ADDRESSES:
        parser.error(f"--tries: 20 to {2 * ADDRESSES}")
    with tempfile.TemporaryDirectory() as folder:
        server = Server(options.binary, folder)
        for name in ["anna", "boris"]:
            server.add_user(name, options.rounds)
        server.admin("user", "disable", "boris")
        server.start(iterations=options.rounds)
        try:
            good = check(measure(server.address, options.tries))
        finally:
            server.stop()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
