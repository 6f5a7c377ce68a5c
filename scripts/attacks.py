#!/usr/bin/env python3
"""Measures how floods affect an honest client: its p99 and its login time under each attack.

Starts a release build once for each attack. One honest client sends to a chat of its own 20 times a
second and times each answer. Another logs in once a second, with a password hash of the default
cost, from an address that had a session before. The attackers run at a lower priority, because on
a machine of their own they would take no CPU time from the server. With --ws all clients connect
through WebSocket; misuse of HTTP is always among the attacks, and its answers are checked.

Exit code 1: a p99 is over 50 ms, a login takes over a second, or a misuse is answered wrongly.
--short takes about a minute and does not check the p99. Run it on a quiet machine: the first row,
without an attack, is the baseline. --markdown prints the table for docs/testing.md only, with the
machine and the time below it.
"""

import argparse
import multiprocessing
import os
import shutil
import signal
import struct
import sys
import tempfile
import time
from typing import NamedTuple

import misuse
from harness import (
    PASSWORD, Connection, Declined, Server, add_transport, default_binary, frame, text,
)
from purpose import API_1_0, ProtocolError
from purpose.wire import (
    ACCEPTED, CREATE_CHAT, DECLINED, EDIT_MSG, LEAVE_CHAT, LOGIN, SEARCH_MSG, SEND_CHAT_MSG,
    SET_CHAT_TITLE,
)

P99_MS_MAX, LOGIN_MS_MAX = 50, 1000
SENDS_PER_SECOND = 20
HONEST = "127.0.0.5"
PIPELINED = 64
ITERATIONS = 600_000
FAULTS_MAX = 100
GRACE_SECONDS = 60


class Target(NamedTuple):
    """Address of the server, and the transport to use."""

    address: tuple
    is_web: bool = False

    def connect(self, source="127.0.0.1", version=API_1_0):
        return Client(self.address, source=source, version=version, is_web=self.is_web)


class Client(Connection):
    """A connection on 1.0, optionally from a given source address."""

    def flood(self, request, until, window=PIPELINED):
        """Sends `request(n)` as fast as the server answers; returns how many were accepted."""
        accepted = sent = answered = 0
        while time.monotonic() < until:
            burst = bytearray()
            while sent - answered < window:
                purpose, body = request(sent)
                burst += frame(purpose, 1 + sent % 200, body)
                sent += 1
            self.send(burst)
            purpose, task, _ = self.next_frame()
            while purpose is not None:
                if purpose in (ACCEPTED, DECLINED) and task:
                    answered += 1
                    accepted += purpose == ACCEPTED
                purpose, task, _ = self.link.receive(0) or (None, None, None)
        return accepted


def alone(action):
    """Runs an attacker's loop until the end of the attack, whatever errors the server causes."""
    def run(target, until, number, faults):
        os.nice(15)
        while time.monotonic() < until:
            try:
                for fault in action(target, until, number) or ():
                    if len(faults) < FAULTS_MAX:
                        faults.append(fault)
            except (OSError, Declined, ProtocolError):
                time.sleep(0.01)
    return run


@alone
def log_lines(target, _until, number):
    """Sends frames over every limit; each ends the connection and may cause a log line."""
    peer = target.connect(f"127.0.1.{1 + number}", version=None)
    peer.send(b"\xff\xff\xff\xff\x20\x01")
    peer.close()


@alone
def big_messages(target, until, _number):
    """Sends the longest messages as fast as they are accepted."""
    client = target.connect()
    client.login("mallory")
    chat = client.ask(CREATE_CHAT, text(f"flood-{os.getpid()}-{time.monotonic_ns()}"))
    words = " ".join(f"w{n:06}" for n in range(2000))[:16_000]
    client.flood(lambda n: (SEND_CHAT_MSG, chat + text(f"{n} {words}")), until, 16)


@alone
def edits(target, until, _number):
    """Edits one message in a loop."""
    client = target.connect()
    client.login("mallory")
    chat = client.ask(CREATE_CHAT, text(f"edits-{os.getpid()}-{time.monotonic_ns()}"))
    message = client.ask(SEND_CHAT_MSG, chat + text("first"))[:8]
    client.flood(lambda n: (EDIT_MSG, chat + message + text(f"edit {n} of many")), until)


@alone
def groups(target, until, _number):
    """Creates and leaves groups."""
    client = target.connect()
    client.login("mallory")
    for number in range(1_000_000):
        chat = client.ask(CREATE_CHAT, text(f"g{os.getpid()}-{number}"))
        client.ask(LEAVE_CHAT, chat)
        if time.monotonic() > until:
            return


@alone
def titles(target, until, _number):
    """Changes a title in a loop."""
    client = target.connect()
    client.login("mallory")
    chat = client.ask(CREATE_CHAT, text(f"titles-{os.getpid()}-{time.monotonic_ns()}"))
    client.flood(lambda n: (SET_CHAT_TITLE, chat + text(f"title {n}")), until)


@alone
def right_logins(target, until, number):
    """Logs in with the right password in a loop."""
    source = f"127.0.2.{1 + number}"
    while time.monotonic() < until:
        client = target.connect(source)
        client.ask(LOGIN, text(f"costly{number}") + text(PASSWORD))
        client.close()


@alone
def wrong_logins(target, until, number):
    """Tries wrong passwords for many names, from many addresses, with eight connections each."""
    peers = []
    for n in range(8):
        peers.append(target.connect(f"127.0.3.{1 + number}"))
    turn = 0
    while time.monotonic() < until:
        for n, peer in enumerate(peers):
            name = text(f"who{number}-{n}-{turn}")
            peer.send(frame(LOGIN, 1, name + text("wrong password")))
        for peer in peers:
            peer.next_frame()
        turn += 1


@alone
def silent(target, until, number):
    """Keeps as many silent connections as an address may have."""
    source = f"127.0.4.{1 + number}"
    held = [target.connect(source, version=None) for _ in range(64)]
    while time.monotonic() < until:
        time.sleep(0.1)
        for n, peer in enumerate(held):
            try:
                peer.link.receive(0)
            except OSError:
                held[n] = target.connect(source, version=None)


@alone
def deaf(target, until, number):
    """Keeps a hundred sessions of one user that read nothing, and one that sends to them."""
    held = []
    for _ in range(50):
        client = target.connect()
        client.login("mallory")
        held.append(client)
    sender = held[0]
    chat = sender.ask(CREATE_CHAT, text(f"deaf-{number}-{time.monotonic_ns()}"))
    sender.flood(lambda n: (SEND_CHAT_MSG, chat + text("x" * 8000)), until, 8)


@alone
def searches(target, until, _number):
    """Searches for common words, and sends messages in between."""
    client = target.connect()
    client.login("mallory")
    chat = client.ask(CREATE_CHAT, text(f"search-{os.getpid()}-{time.monotonic_ns()}"))
    query = struct.pack("<IH", 0, 200) + text("w0* w00*")
    client.flood(
        lambda n: (SEARCH_MSG, query) if n % 4 == 0 else (SEND_CHAT_MSG, chat + text(f"w0{n} w00{n}")),
        until, 8)


@alone
def smuggled(target, _until, number):
    """Sends HTTP requests that a proxy could parse differently (request smuggling)."""
    return misuse.smuggle(target.address, f"127.0.5.{1 + number}")


@alone
def crawling(target, until, number):
    """Keeps as many slow heads, slow bodies and half upgrades as an address may have, each at one
    byte per second."""
    held = []
    while time.monotonic() < until:
        while len(held) < 384:
            peer = misuse.Raw(target.address, f"127.0.6.{1 + number}")
            _, data, at_once, _ = misuse.SLOW[len(held) % len(misuse.SLOW)]
            peer.send(data[:at_once])
            peer.socket.setblocking(False)
            held.append(peer)
        time.sleep(1)
        held = [peer for peer in held if crawls_on(peer)]


def crawls_on(peer):
    """Sends a byte; returns whether the connection is still open."""
    try:
        peer.send(b"y")
        if peer.socket.recv(4096):
            return True
    except BlockingIOError:
        return True
    except OSError:
        pass
    peer.socket.close()
    return False


@alone
def broken_frames(target, _until, number):
    """Sends frames without a mask, fragmented control frames, and others that RFC 6455 forbids."""
    return misuse.break_frames(target.address, f"127.0.7.{1 + number}")


@alone
def fragments(target, _until, number):
    """Sends messages cut into single bytes, with Pings in between, and reads the Pongs late."""
    return misuse.fragment(target.address, f"127.0.8.{1 + number}")


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
    ("HTTP requests to smuggle", [smuggled] * 4, [], False),
    ("slow heads, slow bodies, half upgrades", [crawling] * 4, [], False),
    ("wrong masks, fragmented controls", [broken_frames] * 4, [], False),
    ("single bytes with Pings between them", [fragments] * 2, [], False),
]


# What the short form leaves out: others are like them.
LEFT_OUT_SHORT = [
    "searches next to it", "titles", "right passwords, one address", "HTTP requests to smuggle",
    "single bytes with Pings between them",
]


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("inf")


def honest_sends(target, seconds, results):
    """Sends messages at a steady rate; reports the milliseconds until each answer."""
    times = []
    client = target.connect(HONEST)
    client.login("anna")
    chat = client.ask(CREATE_CHAT, text(f"honest-{time.monotonic_ns()}"))
    begun, count = time.monotonic(), 0
    while time.monotonic() < begun + seconds:
        before = time.monotonic()
        client.ask(SEND_CHAT_MSG, chat + text(f"honest {count}"))
        times.append(1000 * (time.monotonic() - before))
        count += 1
        time.sleep(max(0, begun + count / SENDS_PER_SECOND - time.monotonic()))
    results["sends"] = times


def honest_logins(target, seconds, results):
    """Logs in once a second on a new connection; reports the milliseconds until each answer."""
    times, begun = [], time.monotonic()
    while time.monotonic() < begun + seconds:
        before = time.monotonic()
        try:
            client = target.connect(HONEST)
            client.login("boris")
            client.close()
            times.append(1000 * (time.monotonic() - before))
        except (OSError, Declined, ProtocolError) as error:
            times.append(float("inf"))
            print(f"an honest login: {error}", file=sys.stderr, flush=True)
        time.sleep(max(0, before + 1 - time.monotonic()))
    results["logins"] = times


def run_attack(arguments, name, attackers, options, is_log_stuck):
    """Runs one attack and returns a row: p99 and maximum of sends, median and maximum of logins, in
    milliseconds; also the server's exit code and its wrong answers."""
    folder = tempfile.mkdtemp(prefix="vestnik-attack-")
    server = Server(arguments.binary, folder)
    server.stuck_log = is_log_stuck
    try:
        for user, cost in [("anna", 1000), ("boris", ITERATIONS), ("mallory", 1000)]:
            server.add_user(user, cost)
        for number in range(3):
            server.add_user(f"costly{number}", ITERATIONS)
        server.start(*options, iterations=ITERATIONS)
        target = Target(server.address, arguments.ws)
        target.connect(HONEST).login("boris")
        with multiprocessing.Manager() as manager:
            results, faults = manager.dict(), manager.list()
            # The attack goes on until the honest are done.
            until = time.monotonic() + arguments.warmup + arguments.seconds + GRACE_SECONDS
            bad = [multiprocessing.Process(target=attacker, args=(target, until, n, faults))
                   for n, attacker in enumerate(attackers)]
            for process in bad:
                process.start()
            time.sleep(arguments.warmup)
            good = [multiprocessing.Process(target=work, args=(target, arguments.seconds, results))
                    for work in (honest_sends, honest_logins)]
            for process in good:
                process.start()
            for process in good:
                process.join(arguments.seconds + GRACE_SECONDS)
            for process in bad + good:
                process.kill()
                process.join()
            sends, logins = results.get("sends", []), results.get("logins", [])
            wrong = sorted(set(faults))
        code = server.stop()
    finally:
        if server.process and server.process.poll() is None:
            server.kill()
        shutil.rmtree(folder, ignore_errors=True)
    row = (percentile(sends, 0.99), max(sends, default=float("inf")),
           percentile(logins, 0.5), max(logins, default=float("inf")))
    print(f"| {name} | {row[0]:.1f} | {row[1]:.1f} | {row[2]:.0f} | {row[3]:.0f} |", flush=True)
    return row, code, wrong


def machine():
    """The date and the machine, for the line below a table."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    load = os.getloadavg()[0]
    return (f"{time.strftime('%Y-%m-%d')}, {len(models)} cores of {models[0] if models else '?'}, "
            f"load {load:.1f} at the end")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="of each attack (default 10)")
    parser.add_argument("--short", action="store_true", help="under a minute for all of them")
    parser.add_argument("--only", default="", metavar="TEXT", help="attacks with this in their name")
    parser.add_argument("--markdown", action="store_true",
                        help="the table for docs/testing.md alone; faults go to standard error")
    parser.add_argument("--binary", default=default_binary())
    add_transport(parser)
    arguments = parser.parse_args()
    arguments.warmup = 2
    if arguments.short:
        arguments.seconds, arguments.warmup = 3, 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print("| attack | p99 ms | longest ms | login ms | longest login ms |")
    print("| --- | ---: | ---: | ---: | ---: |", flush=True)
    wrong = []
    for attack in ATTACKS:
        if arguments.only not in attack[0] or arguments.short and attack[0] in LEFT_OUT_SHORT:
            continue
        row, code, faults = run_attack(arguments, *attack)
        wrong += [f"{attack[0]}: {fault}" for fault in faults]
        if code != 0:
            wrong.append(f"{attack[0]}: the server ended with {code}")
        if row[0] > P99_MS_MAX and not arguments.short:
            wrong.append(f"{attack[0]}: p99 {row[0]:.0f} ms")
        if row[3] > LOGIN_MS_MAX:
            wrong.append(f"{attack[0]}: a login took {row[3]:.0f} ms")
    if arguments.markdown:
        through = "WebSocket" if arguments.ws else "plain TCP"
        print(f"\nOver {through}, {arguments.seconds:.0f} s each; {machine()}.")
        print("\n".join(wrong), end="\n" if wrong else "", file=sys.stderr)
    else:
        print("\n".join(wrong) or "all within the bounds")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
