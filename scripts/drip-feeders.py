#!/usr/bin/env python3
"""Measures what ten thousand connections cost that send one byte a second.

Each connection sends a frame byte by byte (with --ws inside a WebSocket frame), and starts again
when it is complete. Exit code 1 unless both hold:
  - the server's resident memory grows by less than 1 KiB per connection;
  - the p99 of an honest client is at most twice that without them (medians of alternating runs).
"""

import argparse
import resource
import shutil
import socket
import statistics
import sys
import tempfile
import threading
import time

from harness import (
    WEB_PATH, Server, WebSocket, add_transport, default_binary, frame, shake_hands,
)
from purpose.wire import HEARTBEAT

BYTES_MAX = 1024
RATIO_MAX = 2
FRAME = frame(HEARTBEAT, 7, b"drop by drop")
PER_ADDRESS = 20_000
STEPS = 50


class Feeders:
    """All of them, fed by one thread."""

    def __init__(self, address, count, is_web):
        self.frame = WebSocket.wrap(FRAME) if is_web else FRAME
        self.sockets = []
        for number in range(count):
            feeder = socket.socket()
            feeder.bind((f"127.0.0.{10 + number // PER_ADDRESS}", 0))
            feeder.connect(address)
            if is_web:
                shake_hands(feeder, address, WEB_PATH)
            feeder.setblocking(False)
            self.sockets.append(feeder)
        self.lost = 0
        self.late = 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._feed)

    def _feed(self):
        """A byte to each, spread over the second."""
        turn = 0
        while True:
            begun = time.monotonic()
            for step in range(STEPS):
                for feeder in self.sockets[step::STEPS]:
                    self._drop(feeder, turn)
                wait = begun + (step + 1) / STEPS - time.monotonic()
                self.late += wait < -0.5
                if self.ended.wait(max(0, wait)):
                    return
            turn += 1

    def _drop(self, feeder, turn):
        at = turn % len(self.frame)
        try:
            feeder.send(self.frame[at : at + 1])
            if at == 0 and turn:
                feeder.recv(4096)
        except OSError:
            self.lost += 1

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()
        for feeder in self.sockets:
            feeder.close()


class Measurement:
    """One run of the whole thing."""

    def __init__(self, arguments, folder):
        self.arguments = arguments
        self.server = Server(arguments.binary, folder)
        self.wrong = 0

    def expect(self, is_so, words):
        print(f"{'ok   ' if is_so else 'WRONG'} {words}", flush=True)
        self.wrong += not is_so

    def p99_ms(self):
        """p99 of messages that come at a steady rate, in milliseconds."""
        metrics = self.server.load(
            "rate", "--members", 20, "--rate", 2000, "--seconds", self.arguments.seconds,
            is_web=self.arguments.ws,
        )
        return metrics["delivery_us"]["p99"] / 1000

    def run(self):
        self.server.admin("load", "prepare", "--users", "20", "--chat", "load")
        self.server.start(
            "--user-bytes-per-day", "0",
            "--max-unauthorized-per-address", "0", "--auth-timeout", "86400",
            "--idle-timeout", "3600",
        )
        alone, with_them, sizes = [], [], []
        self.p99_ms()
        for _ in range(self.arguments.pairs):
            alone.append(self.p99_ms())
            before = self.server.resident_bytes()
            count = self.arguments.connections
            with Feeders(self.server.address, count, self.arguments.ws) as feeders:
                with_them.append(self.p99_ms())
                grown = self.server.resident_bytes() - before
                sizes.append(grown / self.arguments.connections)
            self.expect(feeders.lost == 0, f"{feeders.lost} bytes could not be sent")
            if feeders.late:
                print(f"      this machine was too busy to feed in time ({feeders.late} times)")
            time.sleep(2)
        # The memory of the first round is used again by the others.
        self.expect(sizes[0] < BYTES_MAX, f"{sizes[0]:.0f} bytes of memory for each")
        one, other = statistics.median(alone), statistics.median(with_them)
        self.expect(
            other <= RATIO_MAX * one,
            f"p99 alone {one:.2f} ms, next to {self.arguments.connections} of them {other:.2f} ms: "
            f"{other / one:.2f} times (medians of {self.arguments.pairs}; "
            f"{min(alone):.2f}-{max(alone):.2f} and {min(with_them):.2f}-{max(with_them):.2f})",
        )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--pairs", type=int, default=3, help="runs with and without (%(default)s)")
    parser.add_argument("--seconds", type=int, default=10, help="of each run (%(default)s)")
    parser.add_argument("--binary", default=default_binary())
    add_transport(parser)
    arguments = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    folder = tempfile.mkdtemp(prefix="vestnik-drip-feeders-")
    measurement = Measurement(arguments, folder)
    try:
        measurement.run()
    finally:
        if measurement.server.process and measurement.server.process.poll() is None:
            measurement.server.kill()
        shutil.rmtree(folder)
    return 1 if measurement.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
