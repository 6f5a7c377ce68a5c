#!/usr/bin/env python3
"""Measures how far `export`, `check` and `backup` let the WAL grow during a flood.

Starts a release build on a large database, lets one client send long messages without pause, and
runs each command. Its output goes to a pipe, which is read slowly if there is much. Prints the
largest WAL before and during each command, and the duration.

Exit code 1: a command lets the WAL grow over the bound (64 MiB).
"""

import argparse
import multiprocessing
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time

from attacks import Target
from erasure import fill, size
from harness import Server, default_binary, text
from purpose.wire import CREATE_CHAT, SEND_CHAT_MSG

WAL_MIB_MAX = 64


def largest_wal(server, seconds, is_over):
    """The largest WAL, in MiB, in that time or until it is over."""
    largest, until = 0, time.monotonic() + seconds
    while time.monotonic() < until and not is_over():
        largest = max(largest, size(server.data + "-wal"))
        time.sleep(0.02)
    return largest


def read_slowly(stream, megabytes_per_second):
    """Reads to the end, at that pace."""
    while stream.read(1 << 16):
        time.sleep((1 / 16) / megabytes_per_second)


def flood(address):
    """Sends the longest messages as fast as they are accepted."""
    client = Target(address).connect()
    client.login("mallory")
    chat = client.ask(CREATE_CHAT, text("flood"))
    words = " ".join(f"w{n:06}" for n in range(2000))[:16_000]
    client.flood(lambda n: (SEND_CHAT_MSG, chat + text(f"{n} {words}")), time.monotonic() + 3600, 16)


def run_command(server, arguments):
    """One row: the command, its seconds, the largest WAL before and during it."""
    before = largest_wal(server, 2, lambda: False)
    begun = time.monotonic()
    process = subprocess.Popen(
        [server.binary, *arguments, "--data", server.data], stdout=subprocess.PIPE)
    threading.Thread(target=read_slowly, args=(process.stdout, 20), daemon=True).start()
    during = largest_wal(server, 600, lambda: process.poll() is not None)
    took = time.monotonic() - begun
    print(f"| {arguments[0]} | {took:.1f} | {before:.0f} | {during:.0f} | {process.returncode} |",
          flush=True)
    return during


def run(arguments, folder):
    server = Server(arguments.binary, folder)
    for user in ("anna", "mallory"):
        server.add_user(user)
    options = ("--user-bytes-per-day", "0")
    server.start(*options)
    anna = Target(server.address).connect()
    anna.login("anna")
    chat = anna.ask(CREATE_CHAT, text("large"))
    server.stop()
    fill(server.data, struct.unpack("<I", chat)[0], arguments.messages, False)
    server.start(*options)
    sender = multiprocessing.Process(target=flood, args=(server.address,))
    sender.start()
    try:
        time.sleep(2)
        print("| command | s | WAL before MiB | during MiB | exit |")
        print("| --- | --- | --- | --- | --- |", flush=True)
        commands = [["export", "large"], ["check"], ["backup", os.path.join(folder, "copy.db")]]
        return [run_command(server, command) for command in commands]
    finally:
        sender.kill()
        server.kill()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--binary", default=default_binary())
    arguments = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="vestnik-wal-")
    try:
        largest = max(run(arguments, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"the WAL grew to {largest:.0f} MiB")
    sys.stdout.flush()
    os._exit(1 if largest > WAL_MIB_MAX else 0)


if __name__ == "__main__":
    main()
