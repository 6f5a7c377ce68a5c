#!/usr/bin/env python3
"""Can somebody say from the time of `bad-credentials` whether a user exists or is disabled?

Starts a server of its own on a fresh data file, tries wrong passwords for an existing, an unknown
and a disabled user in random order, and compares the three samples by pairs: as a whole
(Mann-Whitney U, two sided), and try by try, which a machine that is busy at times does not blur as
much (sign test). A fourth sample, of passwords so long that they are wrong without being hashed,
must stand out: it shows that the check can see a difference.

    scripts/timing-credentials.py [--binary target/release/vestnik] [--tries 200] [--rounds 20000]

Few rounds make the check sharper: what differs besides the hash is a larger part of the whole.
Exit code 0: not sent apart; 1: sent apart, or the control was not. By chance alone about one run
in 150 fails.

Every try comes from its own loopback address or nearly so, and each address fails with a login at
most a few times: otherwise the throttle would answer.
"""

import argparse
import itertools
import math
import os
import random
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

ACCEPTED, DECLINED, HELLO, LOGIN = 0x00, 0x01, 0x20, 0x21
ADDRESSES = 250
PASSWORD = "correct horse battery staple"
# Distinguishable when less likely than this by chance; three pairs are compared.
SIGNIFICANCE = 0.001


def frame(purpose, task, body):
    return struct.pack("<IBB", len(body), purpose, task) + body


def read_exactly(sock, count):
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            raise SystemExit("the server closed the connection")
        data += piece
    return data


def read_frame(sock):
    length, purpose, task = struct.unpack("<IBB", read_exactly(sock, 6))
    return purpose, task, read_exactly(sock, length)


def failed_login_seconds(port, source, login, password):
    """The time from LOGIN to its `bad-credentials`, in seconds."""
    with socket.socket() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(30)
        sock.bind((source, 0))
        sock.connect(("127.0.0.1", port))
        sock.sendall(frame(HELLO, 1, bytes([0, 1])))
        if read_frame(sock)[0] != ACCEPTED:
            raise SystemExit("HELLO was declined")
        request = frame(LOGIN, 2, login.encode() + b"\0" + password.encode() + b"\0")
        begun = time.perf_counter()
        sock.sendall(request)
        purpose, _, body = read_frame(sock)
        taken = time.perf_counter() - begun
    if purpose != DECLINED or not body.startswith(b"bad-credentials:"):
        raise SystemExit(f"expected bad-credentials, got {purpose:#x} {body[:80]!r}")
    return taken


def measure(port, tries):
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
            seconds[kind].append(failed_login_seconds(port, source, *kinds[kind]))
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
        print("the control was not notified apart: this check sees nothing")
        good = False
    return good


def run(binary, data, *words, password=None):
    command = [binary, *words, "--data", data]
    text = None if password is None else password + "\n"
    subprocess.run(command, input=text, text=True, check=True, stdout=subprocess.DEVNULL)


def prepare(binary, data, rounds):
    for name in ["anna", "boris"]:
        words = ["user", "add", name, "--password-stdin", "--password-iterations", str(rounds)]
        run(binary, data, *words, password=PASSWORD)
    run(binary, data, "user", "disable", "boris")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default="target/release/vestnik")
    parser.add_argument("--tries", type=int, default=200, help="of each kind")
    parser.add_argument("--rounds", type=int, default=20_000, help="of PBKDF2")
    options = parser.parse_args()
    # Two kinds share a login, and a bucket holds five failures per login and address.
    if not 20 <= options.tries <= 2 * ADDRESSES:
        parser.error(f"--tries: 20 to {2 * ADDRESSES}")
    binary = os.path.abspath(options.binary)
    with tempfile.TemporaryDirectory() as folder:
        data = os.path.join(folder, "timing.db")
        prepare(binary, data, options.rounds)
        server = subprocess.Popen(
            [binary, "serve", "--data", data, "--listen", "127.0.0.1:0"]
            + ["--password-iterations", str(options.rounds)],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            line = server.stdout.readline()
            if not line.startswith("listening plain "):
                raise SystemExit(f"the server did not start: {line!r}")
            port = int(line.rsplit(":", 1)[1])
            good = check(measure(port, options.tries))
        finally:
            server.terminate()
            server.wait()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
