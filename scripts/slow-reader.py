#!/usr/bin/env python3
"""Checks that a slow consumer costs nobody else: one member stops reading for a million messages.

`vestnik-load run fanout` sends to a chat as fast as the server accepts, and its members check what
they receive. One more member is connected and reads nothing. Exit code 1 unless all of these hold:
  - the other members get as many messages per second as without it (medians of alternating runs;
    the ratio is at least 0.95);
  - the resident memory of the server grows by less than 4 MiB, both at rest and at its peak;
  - when the stalled member reads again, it gets every message of the chat once, in order, and is
    then live again.
"""

import argparse
import shutil
import statistics
import struct
import sys
import tempfile
import threading
import time

from harness import (
    LOAD_PASSWORD, Connection, Server, add_transport, default_binary, frame, text, unpack_messages,
)
from purpose.wire import HEARTBEAT, MSG_NOTIFY, SEND_CHAT_MSG

GROWTH_KIB_MAX = 4096
RATIO_MIN = 0.95


class Member(Connection):
    """A member that reads when it is asked to."""

    def __init__(self, address, number, is_web):
        super().__init__(address, is_web=is_web, timeout=300)
        self.login(f"load{number}", LOAD_PASSWORD)

    def collect(self, until_task):
        """The ids of all that it is notified before the answer to a task, in order."""
        ids = []
        while True:
            purpose, task, body = self.next_frame()
            if purpose == MSG_NOTIFY:
                ids.extend(message_id for message_id, _, _ in unpack_messages(body[4:]))
            elif task == until_task:
                return ids


class Memory:
    """The highest resident memory of a process while it is watched, in KiB."""

    def __init__(self, pid):
        self.pid, self.most = pid, 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._watch)

    def now(self):
        with open(f"/proc/{self.pid}/status", encoding="utf-8") as status:
            return int(next(line for line in status if line.startswith("VmRSS:")).split()[1])

    def _watch(self):
        while not self.ended.wait(0.05):
            self.most = max(self.most, self.now())

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()


class Measurement:
    """One run of the whole thing."""

    def __init__(self, arguments, folder):
        self.arguments = arguments
        self.server = Server(arguments.binary, folder)
        self.wrong = []

    def expect(self, is_so, words):
        print(f"{'ok   ' if is_so else 'WRONG'} {words}", flush=True)
        if not is_so:
            self.wrong.append(words)

    def fanout(self, seconds):
        """A load run: deliveries per second, and messages sent."""
        metrics = self.server.load(
            "fanout", "--members", self.arguments.members, "--seconds", seconds,
            is_web=self.arguments.ws,
        )
        return metrics["per_second"], metrics["sends"]

    def member(self, number):
        return Member(self.server.address, number, self.arguments.ws)

    def stalled(self):
        return self.member(self.arguments.members)

    def run(self):
        users = str(self.arguments.members + 1)
        self.server.admin("load", "prepare", "--users", users, "--chat", "load")
        self.server.start("--stall-timeout", "86400", "--user-bytes-per-day", "0")
        self.fanout(self.arguments.seconds)
        self.compare_rates()
        self.stall_through(self.arguments.messages)
        self.expect(self.server.stop() == 0, "the server ends gracefully")

    def compare_rates(self):
        without, with_them = [], []
        for _ in range(self.arguments.pairs):
            without.append(self.fanout(self.arguments.seconds)[0])
            member = self.stalled()
            with_them.append(self.fanout(self.arguments.seconds)[0])
            member.reset()
        one, other = statistics.median(without), statistics.median(with_them)
        self.expect(
            other / one >= RATIO_MIN,
            f"deliveries/s without a stalled member {one:,.0f}, with one {other:,.0f}: "
            f"{other / one:.3f} (medians of {self.arguments.pairs}; "
            f"{min(without):,.0f}-{max(without):,.0f} and {min(with_them):,.0f}-{max(with_them):,.0f})",
        )

    def stall_through(self, messages):
        pid = self.server.process.pid
        with Memory(pid) as before:
            self.fanout(self.arguments.seconds)
        at_rest = before.now()
        sender = self.member(self.arguments.members - 1)
        chat = sender.chat_id("load")
        member = self.stalled()
        since = self.send(sender, chat)
        sender.close()
        sent = 0
        with Memory(pid) as meanwhile:
            while sent < messages:
                sent += self.fanout(10 * self.arguments.seconds)[1]
        growth = meanwhile.now() - at_rest
        self.expect(
            growth < GROWTH_KIB_MAX and meanwhile.most - before.most < GROWTH_KIB_MAX,
            f"over {sent:,} messages memory grew by {growth:,} KiB at rest, and by "
            f"{meanwhile.most - before.most:,} KiB at its highest ({meanwhile.most:,} KiB)",
        )
        self.wake(member, chat, since)

    def send(self, sender, chat):
        """Sends a message; its time."""
        body = sender.ask(SEND_CHAT_MSG, struct.pack("<I", chat) + text("a mark"))
        return struct.unpack("<Qq", body)[1]

    def wake(self, member, chat, since):
        begun = time.monotonic()
        member.send(frame(HEARTBEAT, 9))
        got = member.collect(9)
        took = time.monotonic() - begun
        reader = self.member(self.arguments.members - 1)
        kept = [
            message_id
            for pack in reader.history(chat, since)
            for message_id, _, _ in unpack_messages(pack)
        ]
        self.expect(
            got == kept,
            f"the stalled member was notified {len(got):,} of {len(kept):,} messages, "
            f"in order and once, {took:.0f} s after it woke",
        )
        mark = self.send(reader, chat)
        member.send(frame(HEARTBEAT, 10))
        reader.close()
        self.expect(member.collect(10) == [mark], "it is live again")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--members", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=5, help="runs with and without (%(default)s)")
    parser.add_argument("--seconds", type=int, default=4, help="of each run (%(default)s)")
    parser.add_argument("--binary", default=default_binary())
    add_transport(parser)
    arguments = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="vestnik-slow-reader-")
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
