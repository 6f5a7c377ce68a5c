#!/usr/bin/env python3
"""Measures how uploads and downloads of 25 MiB affect the p99 of other clients.

Starts a release build. `vestnik-load run rate` sends messages at a steady rate to a chat whose
members check what they receive. Another user uploads files of 25 MiB into a chat of its own without
pause, or downloads one again and again. Runs without transfers, with uploads and with downloads
alternate. The transfers run at a lower priority, because on a machine of their own they would take
no CPU time from the server. Prints a Markdown table of medians. Run it on a quiet machine.

Exit code 1: a median p99 with transfers is over twice that without, or nothing was transferred.
"""

import argparse
import io
import multiprocessing
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time

from harness import WEB_PATH, LOAD_PASSWORD, Server, add_transport, default_binary
from purpose import Client, Declined, Disconnected

FILE_BYTES = 25 << 20
RATIO_MAX = 2
MEMBERS, DELIVERIES_PER_SECOND = 20, 2000
KINDS = ("without", "uploads", "downloads")


def transfer(kind, address, number, moved):
    """Uploads or downloads until it is killed; counts the bytes."""
    os.nice(15)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with Client(address) as client:
        client.login(f"load{MEMBERS + number}", LOAD_PASSWORD)
        chat = client.create_chat(f"files-{number}-{time.monotonic_ns()}")
        data, before = random.randbytes(FILE_BYTES), 0

        def count(done, _size):
            nonlocal before
            with moved.get_lock():
                moved.value += done - before
            before = done % FILE_BYTES

        if kind == "downloads":
            client.send(chat, files=[data])
            file = client.request_chat_page(chat)[0].files[0]
        moved.value = 0
        try:
            while True:
                if kind == "downloads":
                    client.download(file, io.BytesIO(), count)
                else:
                    client.send(chat, files=[data], progress=count)
        except (Declined, Disconnected) as error:
            print(f"a transfer ended: {error}", file=sys.stderr, flush=True)


class Measurement:
    """One run of the whole thing."""

    def __init__(self, arguments, folder):
        self.arguments = arguments
        self.server = Server(arguments.binary, folder)
        self.p99_ms = {kind: [] for kind in KINDS}
        self.mib_per_second = {kind: [] for kind in KINDS}

    def run(self):
        users = MEMBERS + self.arguments.transfers
        self.server.admin("load", "prepare", "--users", str(users), "--chat", "load")
        self.server.start(
            "--user-bytes-per-day", "0", "--user-files-limit", str(1 << 40),
            "--files-limit", str(1 << 40),
        )
        self.measure("without")
        self.p99_ms["without"].clear()
        for _ in range(self.arguments.runs):
            for kind in KINDS:
                self.measure(kind)
        return self.server.stop()

    def measure(self, kind):
        """The p99 of others during one kind of transfer."""
        host, port = self.server.address
        address = f"ws://{host}:{port}{WEB_PATH}" if self.arguments.ws else f"{host}:{port}"
        moved = multiprocessing.Value("Q", 0)
        count = self.arguments.transfers if kind != "without" else 0
        processes = [multiprocessing.Process(target=transfer, args=(kind, address, n, moved))
                     for n in range(count)]
        for process in processes:
            process.start()
        try:
            while count and not moved.value:
                if not any(process.is_alive() for process in processes):
                    sys.exit("no transfer began")
                time.sleep(0.01)
            begun, before = time.monotonic(), moved.value
            metrics = self.server.load(
                "rate", "--members", MEMBERS, "--rate", DELIVERIES_PER_SECOND,
                "--seconds", self.arguments.seconds, is_web=self.arguments.ws,
            )
            mib = (moved.value - before) / (1 << 20)
        finally:
            for process in processes:
                process.kill()
                process.join()
        self.p99_ms[kind].append(metrics["delivery_us"]["p99"] / 1000)
        self.mib_per_second[kind].append(mib / (time.monotonic() - begun))

    def report(self):
        """Prints the table; whether all is within the bounds."""
        print("| others, next to | p99 ms | from | to | ratio | MiB/s |")
        print("| --- | ---: | ---: | ---: | ---: | ---: |")
        without, is_good = statistics.median(self.p99_ms["without"]), True
        for kind in KINDS:
            times, speed = self.p99_ms[kind], statistics.median(self.mib_per_second[kind])
            median = statistics.median(times)
            what = "nothing" if kind == "without" else f"{kind} of 25 MiB"
            moved = f"{speed:.1f}" if kind != "without" else ""
            print(f"| {what} | {median:.2f} | {min(times):.2f} | {max(times):.2f} "
                  f"| {median / without:.2f} | {moved} |")
            is_good &= median <= RATIO_MAX * without and (kind == "without" or speed > 0)
        through = "WebSocket" if self.arguments.ws else "plain TCP"
        print(f"\nMedians of {self.arguments.runs} runs of {self.arguments.seconds} s over {through}.")
        return is_good


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5, help="of each kind (%(default)s)")
    parser.add_argument("--seconds", type=int, default=10, help="of each run (%(default)s)")
    parser.add_argument("--transfers", type=int, default=1, help="at once (%(default)s)")
    parser.add_argument("--binary", default=default_binary())
    add_transport(parser)
    arguments = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="vestnik-transfer-")
    measurement = Measurement(arguments, folder)
    try:
        code = measurement.run()
        is_good = measurement.report() and code == 0
    finally:
        if measurement.server.is_running():
            measurement.server.kill()
        shutil.rmtree(folder)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
