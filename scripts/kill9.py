#!/usr/bin/env python3
"""Kills a server with -9 while messages are sent, restarts it, and compares; N rounds.

In each round several connections send messages without waiting for the answers, with a window of 1
to 1000. At a random moment the server is killed. It is restarted on the same database, and the chat
is read through the protocol. Checked after each round:
  - every message that was ACCEPTED, or of which somebody was notified, is there exactly once, with
    its content, id and time;
  - of each connection, the database has a prefix of what it sent, in order, and nothing else;
  - ids and times grow over all rounds;
  - the sessions are still valid.
At the end the whole chat is read once more and compared byte for byte with what the rounds read.

Exit code 0: nothing lost, nothing duplicated. 1: something was; the data file is kept.
"""

import argparse
import hashlib
import random
import select
import shutil
import struct
import sys
import tempfile
import time

from harness import (
    Connection, Declined, Disconnected, Server, default_binary, frame, text, unpack_messages,
)
from purpose.wire import ACCEPTED, MSG_NOTIFY, SEND_CHAT_MSG

FRAMES_PER_WRITE = 20
SENT = struct.Struct("<Qq")


def content(round_number, sender, number):
    """The text of the n-th message of a sender. Lengths vary, so that pages are cut anywhere."""
    return f"{round_number}/{sender}/{number}/" + "x" * (number * 37 % 211)


class Sender:
    """A connection that sends without waiting for answers and records its notifications."""

    def __init__(self, address, session, chat, round_number, sender, window):
        self.connection = Connection(address)
        self.connection.restore(session)
        self.chat = struct.pack("<I", chat)
        self.round_number, self.sender, self.window = round_number, sender, window
        self.posted = 0
        self.outgoing = bytearray()
        self.accepted = []
        self.notified = []
        self.ended = False

    def fileno(self):
        return self.connection.link.fileno()

    def wants_to_write(self):
        return bool(self.outgoing) or self.posted - len(self.accepted) < self.window

    def write(self):
        room = min(FRAMES_PER_WRITE, self.window - (self.posted - len(self.accepted)))
        if not self.outgoing:
            for _ in range(room):
                words = content(self.round_number, self.sender, self.posted)
                task = self.posted % 256
                self.outgoing += frame(SEND_CHAT_MSG, task, self.chat + text(words))
                self.posted += 1
        try:
            del self.outgoing[: self.connection.socket.send(self.outgoing)]
        except BlockingIOError:
            pass
        except OSError:
            self.ended = True

    def read(self):
        """Records all frames up to the end of the stream."""
        try:
            for found in self.connection.frames_now():
                self.note(*found)
        except Disconnected:
            self.ended = True

    def read_to_end(self):
        self.ended = False
        try:
            while True:
                self.note(*self.connection.next_frame())
        except Disconnected:
            self.ended = True

    def note(self, purpose, task, body):
        if purpose == ACCEPTED and task == len(self.accepted) % 256:
            self.accepted.append(SENT.unpack(body))
        elif purpose == MSG_NOTIFY:
            self.notified += unpack_messages(body[4:])
        else:
            raise AssertionError(f"frame {purpose:#x} task {task}: {body!r}")


def stream_until_killed(server, senders, seconds):
    """Runs the senders, kills the server, and reads what it had sent before."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        writers = [sender for sender in senders if sender.wants_to_write()]
        readable, writable, _ = select.select(senders, writers, [], left)
        for sender in readable:
            sender.read()
        for sender in writable:
            sender.write()
        if any(sender.ended for sender in senders):
            raise AssertionError("the server ended a stream by itself")
    server.kill()
    for sender in senders:
        sender.read_to_end()
        sender.connection.close()


class Tally:
    """The results of all rounds."""

    def __init__(self):
        self.accepted = self.notified = self.kept = 0
        self.lost, self.doubled, self.wrong = [], [], []
        self.digest = hashlib.sha256()
        self.last = (0, 0)

    def compare(self, round_number, senders, kept):
        """Compares the database after a round with what the senders have recorded."""
        by_content = {}
        for message_id, created, words in kept:
            if words in by_content:
                self.doubled.append(words)
            by_content[words] = (message_id, created)
            if message_id <= self.last[0] or created <= self.last[1]:
                self.wrong.append(f"{words}: id or time does not grow")
            self.last = (message_id, created)
        for sender in senders:
            for number, sent in enumerate(sender.accepted):
                words = content(round_number, sender.sender, number)
                self.expect(by_content, words, sent)
            for message_id, created, words in sender.notified:
                self.expect(by_content, words, (message_id, created))
            self.accepted += len(sender.accepted)
            self.notified += len(sender.notified)
        self.expect_prefixes(round_number, senders, [words for _, _, words in kept])
        self.kept += len(kept)

    def expect(self, by_content, words, expected):
        found = by_content.get(words)
        if found is None:
            self.lost.append(words)
        elif found != expected:
            self.wrong.append(f"{words}: {found}, was {expected}")

    def expect_prefixes(self, round_number, senders, kept):
        """Checks that the database has a prefix of what each connection sent, and nothing else."""
        next_number = [0] * len(senders)
        for words in kept:
            try:
                sender = int(words.split("/")[1])
                number = next_number[sender]
            except (IndexError, ValueError):
                sender, number = None, None
            known = sender is not None and number < senders[sender].posted
            if not known or words != content(round_number, sender, number):
                self.wrong.append(f"{words[:60]}: not sent, out of order, or after a hole")
                continue
            next_number[sender] += 1

    def failed(self):
        return bool(self.lost or self.doubled or self.wrong)

    def print_failures(self):
        for name in ("lost", "doubled", "wrong"):
            for words in getattr(self, name)[:10]:
                print(f"{name}: {words}", file=sys.stderr)


def run_round(server, chat, sessions, round_number, dice, tally):
    """Runs one round. The server runs before it, and has been restarted after it."""
    window = dice.choice([1, 4, 32, 256, 1000])
    senders = [
        Sender(server.address, session, chat, round_number, number, window)
        for number, session in enumerate(sessions[1:])
    ]
    stream_until_killed(server, senders, dice.uniform(0.001, 0.08))
    server.start()
    reader = Connection(server.address)
    reader.restore(sessions[0])
    kept = []
    for pack in reader.history(chat, tally.last[1] + 1):
        tally.digest.update(pack)
        kept += unpack_messages(pack)
    reader.close()
    tally.compare(round_number, senders, kept)


def whole_history_is_as_read(server, chat, session, tally):
    """Checks that the whole chat, read at once, equals what the rounds have read."""
    reader = Connection(server.address)
    reader.restore(session)
    digest = hashlib.sha256()
    for pack in reader.history(chat, 0):
        digest.update(pack)
    reader.close()
    return digest.digest() == tally.digest.digest()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=1000, metavar="N", help="default 1000")
    parser.add_argument("--binary", default=default_binary(), metavar="PATH",
                        help="the server (default: target/release/vestnik)")
    parser.add_argument("--seed", type=int, default=None, metavar="S",
                        help="seed of the random choices (default: a new one, printed)")
    parser.add_argument("--senders", type=int, default=4, metavar="N", help="default 4")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    dice = random.Random(seed)

    folder = tempfile.mkdtemp(prefix="vestnik-kill9-")
    server = Server(options.binary, folder)
    server.start()
    names = [f"user{number}" for number in range(options.senders + 1)]
    server.add_members("hall", names)
    sessions = [Connection(server.address).login(name) for name in names]
    reader = Connection(server.address)
    reader.restore(sessions[0])
    chat = reader.chat_id("hall")
    reader.close()

    tally = Tally()
    begun = time.monotonic()
    rounds = 0
    try:
        while rounds < options.rounds and not tally.failed():
            run_round(server, chat, sessions, rounds, dice, tally)
            rounds += 1
            if rounds % 100 == 0:
                print(f"round {rounds}: {tally.accepted} accepted", flush=True)
        if not whole_history_is_as_read(server, chat, sessions[0], tally):
            tally.wrong.append("the whole chat is not what the rounds read")
        server.admin("check")
    except (AssertionError, ConnectionError, Declined, RuntimeError) as error:
        tally.wrong.append(f"round {rounds}: {type(error).__name__}: {error}")
    finally:
        server.kill()
    print(
        f"rounds {rounds}, messages accepted {tally.accepted}, notified of {tally.notified}, "
        f"kept {tally.kept}, lost {len(tally.lost)}, doubled {len(tally.doubled)}, "
        f"wrong {len(tally.wrong)}, {time.monotonic() - begun:.1f} s"
    )
    if tally.failed():
        tally.print_failures()
        print(f"the data file is kept in {folder}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
