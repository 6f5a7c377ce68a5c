#!/usr/bin/env python3
"""Checks by strace that no answer is sent before its COMMIT is synced to disk.

Runs the server under strace while several connections send messages without waiting, then reads
the system calls of the event loop's thread, turn by turn (a turn ends where it waits for events):
  - between a write to the WAL and the sync of the WAL nothing is sent to a peer;
  - a turn that wrote to the WAL syncs it exactly once. SQLite adds one sync when it restarts the
    WAL, and those of a checkpoint; such turns are counted separately.
Syncs of other threads, which do checkpoints, are ignored.

Exit code 0: both hold. 1: they do not. 2: strace is missing or not allowed.
"""

import argparse
import collections
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile

from harness import Connection, Server, default_binary, frame, text
from purpose.wire import ACCEPTED, SEND_CHAT_MSG

CALLS = (
    "pwrite64,pwritev,write,writev,sendto,sendmsg,sendmmsg,fsync,fdatasync,"
    "epoll_wait,epoll_pwait,epoll_pwait2"
)
LINE = re.compile(r"^(?P<thread>\d+) +(?P<call>\w+)\((?P<rest>.*)$")
DESCRIPTOR = re.compile(r"^\d+<(?P<path>(?:[^<>\\]|\\.|->)*)>")
HEADER_WRITE = re.compile(r", 32, 0(?:\) *=| <unfinished)")


class Turn:
    """The calls between two waits."""

    def __init__(self):
        self.wal_writes = self.wal_syncs = self.sends = self.early_sends = 0
        self.wal_begun_anew = self.checkpoint = False
        self.unsynced = False

    def note(self, call, path, rest):
        if path.startswith(("TCP", "socket")) and call.startswith(("write", "send")):
            self.sends += 1
            self.early_sends += self.unsynced
        elif path.endswith("-wal") and call.startswith("pwrite"):
            self.wal_writes += 1
            self.unsynced = True
            self.wal_begun_anew |= bool(HEADER_WRITE.search(rest))
        elif path.endswith("-wal") and call in ("fsync", "fdatasync"):
            self.wal_syncs += 1
            self.unsynced = False
        elif path.endswith(".db") and call.startswith("pwrite"):
            self.checkpoint = True

    def complaints(self):
        if self.early_sends:
            yield f"{self.early_sends} sends before the sync of what was written"
        if self.wal_writes and self.wal_syncs == 0:
            yield "wrote to the WAL and did not sync it"
        most = 1 + self.wal_begun_anew + self.checkpoint
        if self.wal_syncs > most:
            yield f"{self.wal_syncs} syncs of the WAL in one turn"


def turns_of(path):
    """The turns of the thread that waits for events most often, and how often others synced the WAL."""
    waits = collections.Counter()
    calls = []
    with open(path, encoding="utf-8", errors="replace") as trace:
        for line in trace:
            match = LINE.match(line)
            if not match:
                continue
            calls.append(match.group("thread", "call", "rest"))
            if match["call"].startswith("epoll"):
                waits[match["thread"]] += 1
    if not waits:
        return [], 0
    loop = waits.most_common(1)[0][0]
    turns, elsewhere = [Turn()], 0
    for thread, call, rest in calls:
        if thread != loop:
            descriptor = DESCRIPTOR.match(rest)
            is_log = descriptor and descriptor["path"].endswith("-wal")
            elsewhere += bool(is_log and call in ("fsync", "fdatasync"))
        elif call.startswith("epoll"):
            turns.append(Turn())
        elif descriptor := DESCRIPTOR.match(rest):
            turns[-1].note(call, descriptor["path"], rest)
    return turns, elsewhere


def load(server, count):
    """Several members send `count` messages each without waiting; returns how many were accepted."""
    names = [f"user{number}" for number in range(4)]
    server.add_members("hall", names)
    connections = [Connection(server.address) for _ in names]
    for connection, name in zip(connections, names):
        connection.login(name)
    chat = struct.pack("<I", connections[0].chat_id("hall"))
    accepted = 0
    for begin in range(0, count, 50):
        for connection in connections:
            for number in range(begin, begin + 50):
                body = chat + text(f"message {number}")
                connection.send(frame(SEND_CHAT_MSG, number % 256, body))
        for connection in connections:
            answers = 0
            while answers < 50:
                answers += connection.next_frame()[0] == ACCEPTED
            accepted += answers
    return accepted


def strace_works():
    """Whether strace is there and may trace."""
    strace = shutil.which("strace")
    if strace is None:
        print("strace is missing: install it to run this check", file=sys.stderr)
        return False
    tried = subprocess.run([strace, "-o", os.devnull, "true"], capture_output=True, text=True)
    if tried.returncode != 0:
        print(f"strace may not trace here: {tried.stderr.strip()}", file=sys.stderr)
    return tried.returncode == 0


def stop_traced(server):
    """Ends the server, not strace, which ends with it."""
    with open(f"/proc/{server.process.pid}/task/{server.process.pid}/children") as children:
        child = int(children.read().split()[0])
    os.kill(child, 15)
    server.process.wait(30)
    server.process.stdout.close()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--binary", default=default_binary(), metavar="PATH",
                        help="the server (default: target/release/vestnik)")
    parser.add_argument("--messages", type=int, default=1000, metavar="N",
                        help="of each of four senders (default 1000)")
    options = parser.parse_args()
    if not strace_works():
        return 2
    with tempfile.TemporaryDirectory(prefix="vestnik-strace-") as folder:
        trace = os.path.join(folder, "trace.txt")
        wrapper = ["strace", "-f", "-yy", "-s", "0", "-e", f"trace={CALLS}", "-o", trace]
        server = Server(options.binary, folder, wrapper)
        server.start()
        try:
            accepted = load(server, options.messages)
        finally:
            stop_traced(server)
        turns, elsewhere = turns_of(trace)
    return report(turns, elsewhere, accepted)


def report(turns, elsewhere, accepted):
    wrote = [turn for turn in turns if turn.wal_writes]
    complaints = [
        f"turn {number}: {words}"
        for number, turn in enumerate(turns)
        for words in turn.complaints()
    ]
    if not wrote or not any(turn.sends for turn in wrote):
        complaints.append("no turn was seen that wrote and then sent: the trace is not understood")
    print(
        f"{accepted} messages accepted in {len(wrote)} turns that wrote, "
        f"{sum(turn.wal_syncs for turn in wrote)} syncs of the WAL, "
        f"{sum(turn.sends for turn in wrote)} sends after them, "
        f"{sum(turn.wal_begun_anew for turn in wrote)} times the WAL begun anew, "
        f"{sum(turn.checkpoint for turn in wrote)} turns with a checkpoint, {elsewhere} by other threads, "
        f"{len(complaints)} complaints"
    )
    for words in complaints[:20]:
        print(words, file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
