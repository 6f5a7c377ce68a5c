#!/usr/bin/env python3
"""What floods do to an honest client: a table of its p99 and of its login time under each.

Starts a release build once for each attack. An honest client sends to a chat of its own 20 times a
second and times each answer; another logs in once a second, with a password of the default cost,
from an address that had a session before. Attackers are processes of lower priority: on another
machine they would take nothing from the server.

Exit code 1 when a p99 is over 50 ms or a login takes over a second. `--short` takes under a minute,
and checks nothing but the logins and that the server ends cleanly. The machine has to be quiet: the
first row, without an attack, shows what it does by itself.
"""

import argparse
import multiprocessing
import os
import shutil
import signal
import socket
import struct
import sys
import tempfile
import time

from purpose_wire import (
    HELLO, LOGIN, PASSWORD, SEND_CHAT_MSG, Connection, Declined, Server, default_binary, frame, text,
)

CREATE_CHAT, LEAVE_CHAT, SET_CHAT_TITLE, EDIT_MSG = 0x38, 0x39, 0x3D, 0x48
TYPING, SEARCH_MSG = 0x4D, 0x4B
P99_MS_MAX, LOGIN_MS_MAX = 50, 1000
SENDS_PER_SECOND = 20
HONEST = "127.0.0.5"
PIPELINED = 64
ITERATIONS = 600_000


class Client(Connection):
    """A connection on 1.0, from an address of one's own choice."""

    def __init__(self, address, source="127.0.0.1"):
        self.socket = socket.create_connection(address, timeout=30, source_address=(source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray()
        self.frames = []
        self.ask(HELLO, b"\1\0")

    def flood(self, request, until, window=PIPELINED):
        """Sends what `request(n)` gives as fast as it is answered; how often it was accepted."""
        accepted = sent = answered = 0
        while time.monotonic() < until:
            burst = bytearray()
            while sent - answered < window:
                burst += frame(request(sent)[0], 1 + sent % 200, request(sent)[1])
                sent += 1
            self.socket.sendall(burst)
            while answered < sent and (self.frames or sent - answered >= window):
                purpose, task, _ = self.next_frame()
                if purpose in (0, 1) and task:
                    answered += 1
                    accepted += purpose == 0
        return accepted


def alone(action):
    """Runs an attacker's loop until the end of the attack, whatever the server does to it."""
    def run(address, until, number):
        os.nice(15)
        while time.monotonic() < until:
            try:
                action(address, until, number)
            except (OSError, Declined, ConnectionError):
                time.sleep(0.01)
    return run


@alone
def log_lines(address, _until, number):
    """Frames that are over every limit, and the end of the connection."""
    with socket.create_connection(address, source_address=(f"127.0.1.{1 + number}", 0)) as peer:
        peer.sendall(b"\xff\xff\xff\xff\x20\x01")


@alone
def big_messages(address, until, _number):
    """The longest messages as fast as they are accepted."""
    client = Client(address)
    client.login("mallory")
    chat = client.ask(CREATE_CHAT, text(f"flood-{os.getpid()}-{time.monotonic_ns()}"))
    words = " ".join(f"w{n:06}" for n in range(2000))[:16_000]
    client.flood(lambda n: (SEND_CHAT_MSG, chat + text(f"{n} {words}")), until, 16)


@alone
def edits(address, until, _number):
    """One message edited again and again."""
    client = Client(address)
    client.login("mallory")
    chat = client.ask(CREATE_CHAT, text(f"edits-{os.getpid()}-{time.monotonic_ns()}"))
    message = client.ask(SEND_CHAT_MSG, chat + text("first"))[:8]
    client.flood(lambda n: (EDIT_MSG, chat + message + text(f"edit {n} of many")), until)


@alone
def groups(address, until, _number):
    """Groups made and left."""
    client = Client(address)
    client.login("mallory")
    for number in range(1_000_000):
        chat = client.ask(CREATE_CHAT, text(f"g{os.getpid()}-{number}"))
        client.ask(LEAVE_CHAT, chat)
        if time.monotonic() > until:
            return


@alone
def titles(address, until, _number):
    """A title changed again and again."""
    client = Client(address)
    client.login("mallory")
    chat = client.ask(CREATE_CHAT, text(f"titles-{os.getpid()}-{time.monotonic_ns()}"))
    client.flood(lambda n: (SET_CHAT_TITLE, chat + text(f"title {n}")), until)


@alone
def right_logins(address, until, number):
    """Logins with one's own right password, one after the other."""
    source = f"127.0.2.{1 + number}"
    while time.monotonic() < until:
        client = Client(address, source)
        client.ask(LOGIN, text(f"costly{number}") + text(PASSWORD))
        client.close()


@alone
def wrong_logins(address, until, number):
    """Wrong passwords for many names, from many addresses, eight connections each."""
    peers = []
    for n in range(8):
        peers.append(Client(address, f"127.0.3.{1 + number}"))
    turn = 0
    while time.monotonic() < until:
        for n, peer in enumerate(peers):
            peer.socket.sendall(frame(LOGIN, 1, text(f"who{number}-{n}-{turn}") + text("wrong password")))
        for peer in peers:
            peer.next_frame()
        turn += 1


@alone
def silent(address, until, number):
    """As many silent connections as an address may have."""
    held = []
    for _ in range(64):
        held.append(socket.create_connection(address, source_address=(f"127.0.4.{1 + number}", 0)))
    while time.monotonic() < until:
        time.sleep(0.1)
        for n, peer in enumerate(held):
            peer.setblocking(False)
            try:
                if peer.recv(64) == b"":
                    raise ConnectionError
            except BlockingIOError:
                continue
            except OSError:
                peer.close()
                held[n] = socket.create_connection(
                    address, source_address=(f"127.0.4.{1 + number}", 0))


@alone
def deaf(address, until, number):
    """A hundred sessions of one user that read nothing, and one that sends to them."""
    held = []
    for _ in range(50):
        client = Client(address)
        client.login("mallory")
        held.append(client)
    sender = held[0]
    chat = sender.ask(CREATE_CHAT, text(f"deaf-{number}-{time.monotonic_ns()}"))
    sender.flood(lambda n: (SEND_CHAT_MSG, chat + text("x" * 8000)), until, 8)


@alone
def searches(address, until, _number):
    """Searches for what is common, next to messages of one's own."""
    client = Client(address)
    client.login("mallory")
    chat = client.ask(CREATE_CHAT, text(f"search-{os.getpid()}-{time.monotonic_ns()}"))
    query = struct.pack("<IH", 0, 200) + text("w0* w00*")
    client.flood(
        lambda n: (SEARCH_MSG, query) if n % 4 == 0 else (SEND_CHAT_MSG, chat + text(f"w0{n} w00{n}")),
        until, 8)


# Name, the attackers, options of the server, whether standard error is a pipe that nobody reads.
ATTACKS = [
    ("none", [], [], False),
    ("log lines, and nobody reads the log", [log_lines] * 4, [], True),
    ("16 KB messages of one user", [big_messages], [], False),
    ("searches next to it", [big_messages, searches], [], False),
    ("edits of one user", [edits] * 2, [], False),
    ("groups made and left", [groups] * 2, [], False),
    ("titles", [titles] * 2, [], False),
    ("right passwords, one address", [right_logins], [], False),
    ("right passwords, three addresses", [right_logins] * 3, [], False),
    ("wrong passwords, 50 addresses", [wrong_logins] * 50, [], False),
    ("silent connections, 17 addresses", [silent] * 17, ["--max-connections", "1000"], False),
    ("100 sessions that read nothing", [deaf] * 2, [], False),
]


# What the short form leaves out: others are like them.
LEFT_OUT_SHORT = ["searches next to it", "titles", "right passwords, one address"]


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("inf")


def honest_sends(address, until, results):
    """Messages at a steady rate; milliseconds until each answer."""
    times = []
    client = Client(address, HONEST)
    client.login("anna")
    chat = client.ask(CREATE_CHAT, text(f"honest-{time.monotonic_ns()}"))
    begun, count = time.monotonic(), 0
    while time.monotonic() < until:
        before = time.monotonic()
        client.ask(SEND_CHAT_MSG, chat + text(f"honest {count}"))
        times.append(1000 * (time.monotonic() - before))
        count += 1
        time.sleep(max(0, begun + count / SENDS_PER_SECOND - time.monotonic()))
    results["sends"] = times


def honest_logins(address, until, results):
    """A login a second on a connection of its own; milliseconds until each answer."""
    times = []
    while time.monotonic() < until:
        before = time.monotonic()
        try:
            client = Client(address, HONEST)
            client.login("boris")
            client.close()
            times.append(1000 * (time.monotonic() - before))
        except (OSError, Declined) as error:
            times.append(float("inf"))
            print(f"   an honest login: {error}", flush=True)
        time.sleep(max(0, before + 1 - time.monotonic()))
    results["logins"] = times


def run_attack(arguments, name, attackers, options, is_log_stuck):
    """One row: p99 and worst of sends, the median and the worst login, in milliseconds."""
    folder = tempfile.mkdtemp(prefix="vestnik-attack-")
    server = Server(arguments.binary, folder)
    server.stuck_log = is_log_stuck
    try:
        for user, cost in [("anna", 1000), ("boris", ITERATIONS), ("mallory", 1000)]:
            server.add_user(user, cost)
        for number in range(3):
            server.add_user(f"costly{number}", ITERATIONS)
        server.start(*options, iterations=ITERATIONS)
        Client(server.address, HONEST).login("boris")
        with multiprocessing.Manager() as manager:
            results = manager.dict()
            until = time.monotonic() + arguments.warmup + arguments.seconds
            bad = [multiprocessing.Process(target=attacker, args=(server.address, until, n))
                   for n, attacker in enumerate(attackers)]
            for process in bad:
                process.start()
            time.sleep(arguments.warmup)
            good = [multiprocessing.Process(target=work, args=(server.address, until, results))
                    for work in (honest_sends, honest_logins)]
            for process in good:
                process.start()
            for process in good:
                process.join(arguments.seconds + 60)
            for process in bad + good:
                process.kill()
                process.join()
            sends, logins = results.get("sends", []), results.get("logins", [])
        code = server.stop()
    finally:
        if server.process and server.process.poll() is None:
            server.kill()
        shutil.rmtree(folder, ignore_errors=True)
    row = (percentile(sends, 0.99), max(sends, default=float("inf")),
           percentile(logins, 0.5), max(logins, default=float("inf")))
    print(f"| {name} | {row[0]:.1f} | {row[1]:.1f} | {row[2]:.0f} | {row[3]:.0f} |", flush=True)
    return row, code


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="of each attack (default 10)")
    parser.add_argument("--short", action="store_true", help="under a minute for all of them")
    parser.add_argument("--only", default="", metavar="TEXT", help="attacks with this in their name")
    parser.add_argument("--binary", default=default_binary())
    arguments = parser.parse_args()
    arguments.warmup = 2
    if arguments.short:
        arguments.seconds, arguments.warmup = 3, 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print("| attack | p99 ms | longest ms | login ms | longest login ms |")
    print("| --- | --- | --- | --- | --- |", flush=True)
    wrong = []
    for attack in ATTACKS:
        if arguments.only not in attack[0] or arguments.short and attack[0] in LEFT_OUT_SHORT:
            continue
        row, code = run_attack(arguments, *attack)
        if code != 0:
            wrong.append(f"{attack[0]}: the server ended with {code}")
        if row[0] > P99_MS_MAX and not arguments.short:
            wrong.append(f"{attack[0]}: p99 {row[0]:.0f} ms")
        if row[3] > LOGIN_MS_MAX:
            wrong.append(f"{attack[0]}: a login took {row[3]:.0f} ms")
    print("\n".join(wrong) or "all within the bounds")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
