#!/usr/bin/env python3
"""Opens connections as fast as one client can, as after a restart, and checks that all succeed.

Starts a server and opens N connections to it from several addresses of 127.0.0.0/8 without waiting.
Each sends HELLO once it is open. All must be answered, and the kernel must not have dropped any
because the listen queue was full (ListenOverflows, ListenDrops). Removes its files.

Exit code 0: all were answered. 1: some were not, or the kernel dropped some.
"""

import argparse
import resource
import select
import shutil
import signal
import socket
import struct
import sys
import tempfile
import time

from harness import Server, default_binary, frame
from purpose.wire import ACCEPTED, HEADER, HELLO

ADDRESSES = 8
SPARE_FILES = 200
WAIT_SECONDS = 60


def turned_away():
    """How many connections the kernel has turned away so far, on all listeners of the machine."""
    with open("/proc/net/netstat", encoding="ascii") as file:
        names, values = [line.split() for line in file if line.startswith("TcpExt:")][:2]
    metrics = dict(zip(names, values))
    return {name: int(metrics[name]) for name in ("ListenOverflows", "ListenDrops")}


def resident(process):
    """Bytes of memory that a process has."""
    with open(f"/proc/{process.pid}/smaps_rollup", encoding="ascii") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith("Rss:"))


def open_all(address, count):
    """Begins all connections, and greets on each as it opens; gives the sockets, and how many were
    answered."""
    poll = select.epoll()
    sockets, answered = {}, 0
    deadline = time.monotonic() + WAIT_SECONDS
    while answered < len(sockets) or len(sockets) < count:
        # A burst of new ones, then whatever has happened to the others.
        for _ in range(min(256, count - len(sockets))):
            new = socket.socket()
            new.setblocking(False)
            new.bind((f"127.0.0.{1 + len(sockets) % ADDRESSES}", 0))
            new.connect_ex(address)
            sockets[new.fileno()] = new
            poll.register(new, select.EPOLLOUT)
        for number, _event in poll.poll(0 if len(sockets) < count else 1):
            answered += step(poll, sockets[number])
        if time.monotonic() > deadline:
            break
    return list(sockets.values()), answered


def step(poll, connection):
    """An open connection greets; one that greeted is answered. 1 when it was."""
    try:
        if answer := connection.recv(64):
            poll.unregister(connection)
            length, purpose, task = HEADER.unpack_from(answer)
            return int(purpose == ACCEPTED and task == 1 and len(answer) == HEADER.size + length)
    except BlockingIOError:
        connection.send(frame(HELLO, 1, struct.pack("BB", 1, 0)))
        poll.modify(connection, select.EPOLLIN)
        return 0
    except OSError:
        pass
    poll.unregister(connection)
    return 0


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=19_000, metavar="N",
                        help="default 19000, or what the open-file limit allows")
    parser.add_argument("--binary", default=default_binary())
    options = parser.parse_args()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    count = options.connections
    if limit != resource.RLIM_INFINITY:
        count = min(count, limit - SPARE_FILES)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = tempfile.mkdtemp(prefix="vestnik-rush-")
    server = Server(options.binary, folder)
    try:
        server.start("--max-unauthorized-per-address", "0", "--auth-timeout", "600")
        before, memory = turned_away(), resident(server.process)
        begun = time.monotonic()
        sockets, answered = open_all(server.address, count)
        seconds = time.monotonic() - begun
        lost = {name: turned_away()[name] - before[name] for name in before}
        each = (resident(server.process) - memory) / count
        for one in sockets:
            one.close()
        code = server.stop()
    finally:
        if server.process and server.process.poll() is None:
            server.kill()
        shutil.rmtree(folder)
    print(f"{count} connections in {seconds:.2f} s, {count / seconds:.0f} a second; {answered} answered; "
          f"turned away: {lost['ListenOverflows']} overflows, {lost['ListenDrops']} drops; "
          f"{each:.0f} bytes of the server's memory each; server's exit code {code}")
    sys.exit(0 if answered == count and not any(lost.values()) and code == 0 else 1)


if __name__ == "__main__":
    main()
