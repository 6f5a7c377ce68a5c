#!/usr/bin/env python3
"""Runs mixed load and misbehaving clients for a chosen time: memory must stay flat, latency low.

The honest clients are `vestnik-load run`: a steady rate of messages whose latency is measured, and
runs of all kinds in between; it checks that each message arrives once, in order, undamaged. At the
same time misbehaving clients, from other addresses,
  - do not read, and then read everything or close;          - send frames byte by byte;
  - request long answers and never read them;                - send garbage and malformed requests;
  - end their side and wait for answers;                     - send frames that are too large;
  - connect by the dozen and reset;                          - guess passwords;
  - take one session over from each other;                   - fill a chat with long messages;
  - send ambiguous HTTP requests;                            - send heads and bodies slowly;
  - break the rules of WebSocket;                            - cut messages into single bytes.
The notifications they receive are checked, too. With --ws everything but the misuse of HTTP goes
through WebSocket.

Exit code 1 unless all of these hold at the end:
  - the resident memory of the server is within 10 % of that after the warm-up (a fifth of the
    time): medians over a tenth of the time each;
  - no load run found a fault, and the median of their p99 is at most --p99-ms, or twice that
    without misbehaving clients, if that is more;
  - no misbehaving client was answered wrongly;
  - no connection or user is left in the metrics, the server stops with exit code 0, its log has no
    warning and no error, and `vestnik check` finds nothing.
"""

import argparse
import multiprocessing
import queue
import random
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time

import misuse
from harness import (
    LOAD_PASSWORD, Connection, Disconnected, Server, WebSocket, add_transport, default_binary,
    frame, text, unpack_messages,
)
from purpose.wire import (
    ACCEPTED, DEAUTH, DECLINED, DISCONNECT, GET_CHAT_ID, HEADER, HEARTBEAT, HELLO, LOGIN,
    MSG_NOTIFY, REQUEST_CHAT_MSG, RESTORE_SESSION, SEND_CHAT_MSG,
)

# Users load0 … belong to the load generator, those from here on to the misbehaving.
FIRST_BAD_USER = 200
USERS = 300
NOISE_BYTES = 16_000
NOISE_PER_SECOND = 20
# Of 32 messages each: twice the 16 MiB of SQLite's page cache.
FILL_BATCHES = 66
OPTIONS = [
    "--auth-timeout", "5", "--idle-timeout", "10", "--heartbeat-timeout", "5",
    "--stall-timeout", "20", "--outbound-limit", "262144",
    "--user-bytes-per-day", "0",
]


# The connection has ended, which the misbehaving must expect.
Gone = Disconnected


class Peer(Connection):
    """A connection of a misbehaving client. Each kind of client has its own source address."""

    def __init__(self, world, source, receive_bytes=None):
        super().__init__(world.server, version=None, source=source, is_web=world.is_web,
                         receive_bytes=receive_bytes)

    def ask(self, purpose, body=b"", task=1):
        """Sends a request; returns the answer, ACCEPTED or DECLINED: (purpose, body)."""
        self.send(frame(purpose, task, body))
        return self.answer(task)

    def hello(self, version=b"\0\x01"):
        self.ask(HELLO, version)

    def login(self, number, version=b"\0\x01"):
        """Logs in; returns the session as RESTORE_SESSION accepts it."""
        self.hello(version)
        purpose, body = self.ask(LOGIN, text(f"load{number}") + text(LOAD_PASSWORD))
        if purpose != ACCEPTED:
            raise Gone(body.decode(errors="replace"))
        return body[:69]

    def chat_id(self, name):
        return self.ask(GET_CHAT_ID, text(name))[1]


class World:
    """Shared by the misbehaving clients: server address, stop flag, queue of faults."""

    def __init__(self, server, is_web, stop, faults):
        self.server, self.is_web, self.stop, self.faults = server, is_web, stop, faults

    def pause(self, least, most=None):
        """Sleeps; ends the client when the time is over."""
        if self.stop.wait(random.uniform(least, most or least)):
            raise Gone("it is time")

    def check(self, is_so, words):
        if not is_so:
            self.faults.put(words)


# The misbehaving. Each does one round; Gone ends the round.


def stalled(world, number):
    """Does not read for a while. Then reads everything, which must be in order, or closes."""
    peer = Peer(world, "127.0.0.10", receive_bytes=8192)
    peer.login(FIRST_BAD_USER + number)
    world.pause(2, 40)
    if random.random() < 0.3:
        peer.reset()
        return
    peer.send(frame(HEARTBEAT, 9, b"awake"))
    last, is_awake = {}, False
    while not is_awake:
        purpose, task, body = peer.next_frame()
        is_awake = (purpose, task) == (ACCEPTED, 9)
        if purpose == MSG_NOTIFY:
            chat = body[:4]
            for message_id, _, _ in unpack_messages(body[4:]):
                world.check(message_id > last.get(chat, 0), "a slow reader: a message out of order")
                last[chat] = message_id
    peer.close()


def deaf(world, number):
    """Requests long answers and never reads them."""
    peer = Peer(world, "127.0.0.11", receive_bytes=8192)
    peer.login(FIRST_BAD_USER + 20 + number, b"\x01\0")
    noise = peer.chat_id("noise")
    for task in range(50):
        peer.send(frame(REQUEST_CHAT_MSG, task, noise + struct.pack("<q", 0)))
    world.pause(5, 40)
    peer.reset()


def drip(world, number):
    """Sends one frame byte by byte, logged in or not; the answer must still come."""
    peer = Peer(world, f"127.0.0.{20 + number % 4}")
    if number % 2:
        peer.login(FIRST_BAD_USER + 30 + number)
    drops = frame(HEARTBEAT, 9, b"drop by drop")
    for byte in WebSocket.wrap(drops) if world.is_web else drops:
        peer.link.send_raw(bytes([byte]))
        world.pause(1)
    if number % 2:
        world.check(peer.answer(9) == (ACCEPTED, b"drop by drop"), "a drip feeder: a wrong answer")
    peer.close()


def garbage(world, _number):
    """Sends noise before the login, or malformed requests after it."""
    peer = Peer(world, "127.0.0.12")
    if random.random() < 0.5:
        peer.send(random.randbytes(random.choice([1, 6, 100, 70_000])))
        peer.end_stream()
        while True:
            peer.next_frame()
    peer.login(FIRST_BAD_USER + 80)
    purposes = [0x05, 0x24, 0x28, 0x29, 0x30, 0x7F, 0xFF]
    for _ in range(5):
        tasks = range(200)
        peer.send(b"".join(
            frame(random.choice(purposes), task, random.randbytes(random.randrange(40)))
            for task in tasks
        ))
        for task in tasks:
            purpose, _ = peer.answer(task)
            world.check(purpose == DECLINED, f"garbage was accepted (task {task})")
        world.pause(0.2)
    peer.close()


def half_closed(world, _number):
    """Ends its side at once; every request must be answered before the server closes."""
    peer = Peer(world, "127.0.0.13")
    peer.login(FIRST_BAD_USER + 81)
    peer.send(b"".join(frame(HEARTBEAT, task, b"x" * 100) for task in range(100)))
    peer.end_stream()
    for task in range(100):
        world.check(peer.answer(task)[0] == ACCEPTED, "a half-closed client: no answer")
    try:
        while True:
            world.check(peer.next_frame()[0] not in (ACCEPTED, DECLINED), "an answer too many")
    except Gone:
        world.pause(0.2, 1)


def oversized(world, _number):
    """Announces a frame of four gigabytes."""
    peer = Peer(world, "127.0.0.14")
    peer.send(HEADER.pack(0xFFFFFFFF, SEND_CHAT_MSG, 7) + random.randbytes(5000))
    purpose, _ = peer.answer(7)
    world.check(purpose == DECLINED, "a frame of four gigabytes was taken")
    world.check(peer.next_frame()[0] == DISCONNECT, "no DISCONNECT after too much")
    world.pause(0.2, 1)


def storm(world, _number):
    """Connects by the dozen and disconnects in any state."""
    peers = []
    try:
        for _ in range(60):
            peers.append(Peer(world, "127.0.0.15"))
            if random.random() < 0.5:
                half = frame(HELLO, 1, b"\0\x01")
                peers[-1].send(half[: random.randrange(1, len(half) + 1)])
    finally:
        for peer in peers:
            peer.reset()
    world.pause(0.5, 2)


def guesser(world, _number):
    """Guesses passwords."""
    peer = Peer(world, "127.0.0.16")
    peer.hello()
    for _ in range(20):
        user = random.randrange(FIRST_BAD_USER, USERS)
        purpose, body = peer.ask(LOGIN, text(f"load{user}") + text("guess" + str(random.random())))
        code = body.split(b":")[0]
        is_so = purpose == DECLINED and code in (b"bad-credentials", b"rate-limited")
        world.check(is_so, f"a guess was answered {body!r}")
        world.pause(0.1)
    peer.close()


def takeover(world, _number):
    """Two connections take one session over from each other; the loser must get DEAUTH."""
    one = Peer(world, "127.0.0.17")
    session = one.login(FIRST_BAD_USER + 82)
    other = Peer(world, "127.0.0.17")
    other.hello()
    for _ in range(50):
        purpose, _ = other.ask(RESTORE_SESSION, session)
        world.check(purpose == ACCEPTED, "a session was not restored")
        while one.next_frame()[0] != DEAUTH:
            pass
        one, other = other, one
        world.pause(0.02, 0.2)
    one.close()
    other.close()


def noise(world, _number):
    """Fills a chat with long messages."""
    peer = Peer(world, "127.0.0.18")
    peer.login(FIRST_BAD_USER + 83)
    chat = peer.chat_id("noise")
    for _ in range(300):
        purpose, body = peer.ask(SEND_CHAT_MSG, chat + text("n" * NOISE_BYTES))
        world.check(purpose == ACCEPTED, f"noise was declined: {body!r}")
        world.pause(1 / NOISE_PER_SECOND)
    peer.close()


def misuser(action, source):
    """Runs a function of misuse.py; a wrong answer of the server is a fault."""
    def play(world, number):
        try:
            for fault in action(world.server, f"127.0.0.{source + number}"):
                world.check(False, fault)
        except OSError as error:
            raise Gone(str(error)) from error
        world.pause(0.5, 2)

    play.__name__ = action.__name__
    return play


CAST = [
    (stalled, 10), (deaf, 5), (drip, 40), (garbage, 2), (half_closed, 2), (oversized, 2),
    (storm, 1), (guesser, 2), (takeover, 1), (noise, 1),
    (misuser(misuse.smuggle, 40), 1), (misuser(misuse.crawl, 41), 4),
    (misuser(misuse.break_frames, 45), 1), (misuser(misuse.fragment, 46), 1),
]


def misbehave(server, is_web, stop, faults, rounds):
    """The process of the misbehaving clients: one thread each, in rounds."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    world = World(server, is_web, stop, faults)

    def play(role, number, counts):
        while not stop.is_set():
            try:
                role(world, number)
                counts[role.__name__] += 1
            except Gone:
                pass
            except Exception as error:  # a fault of the script must not pass for a quiet client
                faults.put(f"{role.__name__}: {error!r}")
                return
            stop.wait(0.1)

    counts = {role.__name__: 0 for role, _ in CAST}
    threads = [
        threading.Thread(target=play, args=(role, number, counts))
        for role, count in CAST
        for number in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rounds.put(counts)


class Soak:
    """One run: load, misbehaving clients, and the checks at the end."""

    def __init__(self, arguments, folder):
        self.arguments = arguments
        self.server = Server(arguments.binary, folder)
        self.wrong = []
        self.p99_ms = []
        self.memory = []  # (seconds, resident KiB)

    def fail(self, words):
        print(f"WRONG: {words}", flush=True)
        self.wrong.append(words)

    def run(self):
        for chat in ("load", "noise"):
            self.server.admin("load", "prepare", "--users", str(USERS), "--chat", chat)
        self.server.start(*OPTIONS)
        self.fill_cache()
        alone = self.load("rate", 15)
        stop, faults = multiprocessing.Event(), multiprocessing.Queue()
        rounds = multiprocessing.Queue()
        bad = multiprocessing.Process(
            target=misbehave,
            args=(self.server.address, self.arguments.ws, stop, faults, rounds),
        )
        bad.start()
        ended = threading.Event()
        sampler = threading.Thread(target=self.sample, args=(ended,))
        sampler.start()
        try:
            self.load_until(time.monotonic() + self.arguments.minutes * 60, faults)
        finally:
            ended.set()
            sampler.join()
            stop.set()
        counts = rounds.get(timeout=90)
        bad.join()
        self.take_faults(faults)
        self.check(alone, counts)

    def fill_cache(self):
        """Fills SQLite's page cache before memory is measured.

        Otherwise it would still grow long after the warm-up on a slow or busy machine."""
        peer = Peer(World(self.server.address, self.arguments.ws, None, None), "127.0.0.18")
        peer.login(FIRST_BAD_USER + 83)
        message = peer.chat_id("noise") + text("f" * NOISE_BYTES)
        for _ in range(FILL_BATCHES):
            peer.send(b"".join(frame(SEND_CHAT_MSG, task, message) for task in range(32)))
            for task in range(32):
                if peer.answer(task)[0] != ACCEPTED:
                    self.fail("what fills the cache was declined")
        peer.close()

    def load_until(self, deadline, faults):
        while time.monotonic() < deadline:
            rate = self.load("rate", 20)
            if rate:
                self.p99_ms.append(rate["delivery_us"]["p99"] / 1000)
            self.load("mixed", 3)
            self.take_faults(faults)
            if self.server.process.poll() is not None:
                return

    def load(self, scenario, seconds):
        """Runs one load run; returns its metrics."""
        if scenario == "rate":
            options = ["--members", 50, "--publishers", 4, "--rate", self.arguments.rate]
        else:
            options = ["--connections", 18, "--window", 2]
        try:
            return self.server.load(
                scenario, "--seconds", seconds, *options, is_web=self.arguments.ws)
        except subprocess.CalledProcessError as failed:
            self.fail(f"load run {scenario}: {failed.stderr.strip().splitlines()[-1:]}")
            return None

    def take_faults(self, faults):
        while True:
            try:
                self.fail(faults.get_nowait())
            except queue.Empty:
                return

    def sample(self, ended):
        """Records the resident memory every second."""
        begun = time.monotonic()
        while not ended.wait(1):
            self.memory.append((time.monotonic() - begun, self.resident_kib()))

    def resident_kib(self):
        try:
            return self.server.resident_bytes() // 1024
        except (OSError, StopIteration):
            return 0

    def check(self, alone, counts):
        self.check_memory()
        self.check_latency(alone)
        print("rounds of the misbehaving:", ", ".join(f"{k} {v}" for k, v in counts.items()))
        for name, count in counts.items():
            if count == 0:
                self.fail(f"{name} never came to the end of a round")
        self.check_rest()

    def check_memory(self):
        whole = self.memory[-1][0]
        median = lambda low, high: statistics.median(
            kib for at, kib in self.memory if low * whole <= at <= high * whole
        )
        warm, end = median(0.2, 0.3), median(0.9, 1)
        most = max(kib for _, kib in self.memory)
        print(
            f"resident memory: {warm / 1024:.1f} MiB after the warm-up, {end / 1024:.1f} MiB at "
            f"the end ({100 * (end / warm - 1):+.1f} %), at most {most / 1024:.1f} MiB"
        )
        tenths = [median(tenth / 10, (tenth + 1) / 10) / 1024 for tenth in range(10)]
        print("by tenths of the time, MiB:", ", ".join(f"{mib:.1f}" for mib in tenths))
        if not 0.9 * warm <= end <= 1.1 * warm:
            self.fail("the memory is not flat")

    def check_latency(self, alone):
        if not self.p99_ms or not alone:
            return self.fail("no latency was measured")
        p99_ms, alone_ms = statistics.median(self.p99_ms), alone["delivery_us"]["p99"] / 1000
        print(
            f"p99 of the good: {p99_ms:.1f} ms (median of {len(self.p99_ms)} runs, worst "
            f"{max(self.p99_ms):.1f} ms); alone it was {alone_ms:.1f} ms"
        )
        if p99_ms > max(self.arguments.p99_ms, 2 * alone_ms):
            self.fail("the good clients waited for too long")

    def check_rest(self):
        deadline = time.monotonic() + 40
        while (left := self.left_over()) and time.monotonic() < deadline:
            time.sleep(1)
        if left:
            self.fail(f"left over when all have gone: {left}")
        stats = subprocess.run(
            [self.server.binary, "stats", "--data", self.server.data],
            capture_output=True, text=True, check=False,
        )
        print(stats.stdout)
        if (code := self.server.stop()) != 0:
            self.fail(f"the server ended with exit code {code}")
        with open(self.server.log, encoding="utf-8", errors="replace") as log:
            bad = [line.strip() for line in log if " WARN " in line or " ERROR " in line
                   or "panicked" in line]
        for line in bad[:5]:
            self.fail(f"in the log: {line}")
        try:
            self.server.admin("check")
        except subprocess.CalledProcessError:
            self.fail("vestnik check found something")

    def left_over(self):
        """Metrics of connections and queues that are not 0 after all clients have gone."""
        stats = subprocess.run(
            [self.server.binary, "stats", "--raw", "--data", self.server.data],
            capture_output=True, text=True, check=False,
        )
        names = (
            "connections", "slow_readers", "long_answers", "password_queue", "outbound_bytes",
            "inbound_bytes", "online_users",
        )
        lines = [line.removeprefix("vestnik_") for line in stats.stdout.splitlines()]
        return [
            line for line in lines
            if line.split("{")[0].split(" ")[0] in names and not line.endswith(" 0")
        ] or ([] if stats.returncode == 0 else [stats.stderr.strip()])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=int, default=2000, help="deliveries per second (%(default)s)")
    parser.add_argument("--p99-ms", type=float, default=50, help="bound of p99 (%(default)s)")
    parser.add_argument("--binary", default=default_binary())
    add_transport(parser)
    arguments = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="vestnik-soak-")
    soak = Soak(arguments, folder)
    try:
        soak.run()
    finally:
        if soak.server.process and soak.server.process.poll() is None:
            soak.server.kill()
    if soak.wrong:
        print(f"{len(soak.wrong)} things are wrong; the files are kept in {folder}")
        return 1
    shutil.rmtree(folder)
    print("nothing is wrong")
    return 0


if __name__ == "__main__":
    sys.exit(main())
