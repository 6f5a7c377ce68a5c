#!/usr/bin/env python3
"""Measures how fast a large chat is erased on a busy server, and how that affects other clients.

Fills a chat, starts a release build, lets some clients send without pause and an honest one twenty
times a second, and deletes the chat. Every few seconds it prints how many rows of the chat and of
the search index are left, the sizes of the database and the WAL, and the p99 of the honest client
since the last line.

Exit code 1: rows are left after a minute. With --indexed the chat is in the search index before it
is deleted; indexing takes 150 seconds for 1,000,000 messages.
"""

import argparse
import multiprocessing
import os
import shutil
import sqlite3
import struct
import tempfile
import threading
import time

from attacks import Target, percentile
from harness import Server, default_binary, text
from purpose.wire import CREATE_CHAT, DELETE_CHAT, SEND_CHAT_MSG

BASE = 1_600_000_000_000_000
WITHIN_SECONDS = 60
STEP_SECONDS = 2
WORDS = 500


def fill(data, chat, count, is_indexed):
    """Messages and nonces of a chat, in a database that nobody serves."""
    database = sqlite3.connect(data)
    words = [f"word{n * n % 9973:04}" for n in range(WORDS)]
    contents = [" ".join(words[(n * k) % WORDS] for k in range(1, 9)) for n in range(1, 5000)]
    rows = ((chat, BASE + n, 1, f"{contents[n % len(contents)]} n{n}") for n in range(count))
    database.executemany(
        "INSERT INTO messages (chat_id, message_id, sender_id, content) VALUES (?, ?, ?, ?)", rows)
    rows = ((chat, 1, n * 2654435761 % (1 << 62), BASE + n) for n in range(count))
    database.executemany("INSERT INTO nonces VALUES (?, ?, ?, ?)", rows)
    if is_indexed:
        database.execute("INSERT OR REPLACE INTO meta VALUES ('search_done', 0)")
    database.commit()
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()


def left(data, chat):
    """Rows of the chat, and messages of it that the index knows."""
    database = sqlite3.connect(f"file:{data}?mode=ro", uri=True)
    try:
        count = "SELECT count(*) FROM {} WHERE chat_id = ?"
        return [database.execute(count.format(table), [chat]).fetchone()[0]
                for table in ("messages", "nonces", "search_rows")]
    finally:
        database.close()


def wait_for_index(data, chat, count):
    while (found := left(data, chat)[2]) < count:
        print(f"{found} messages are indexed", flush=True)
        time.sleep(10)


def send_on(address, number):
    """Sends without a pause."""
    client = Target(address).connect(f"127.0.1.{1 + number}")
    client.login("mallory")
    chat = client.ask(CREATE_CHAT, text(f"flood-{number}"))
    client.flood(lambda n: (SEND_CHAT_MSG, chat + text(f"flood {n}")), time.monotonic() + 3600, 16)


def honest(address, times):
    client = Target(address).connect()
    client.login("boris")
    chat = client.ask(CREATE_CHAT, text("honest"))
    while True:
        before = time.monotonic()
        try:
            client.ask(SEND_CHAT_MSG, chat + text("honest"))
        except OSError:
            return  # the server has ended
        took = time.monotonic() - before
        times.append(1000 * took)
        time.sleep(max(0, 0.05 - took))


def size(path):
    return os.path.getsize(path) / (1 << 20) if os.path.exists(path) else 0


def watch(server, chat, times, seconds):
    """Prints a line every few seconds until nothing is left; whether that was within a minute."""
    begun = time.monotonic()
    print("| s | messages | nonces | indexed | database MiB | WAL MiB | p99 ms | longest ms |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    done_after = None
    while time.monotonic() - begun < seconds:
        del times[:]
        time.sleep(STEP_SECONDS)
        rows, passed = left(server.data, chat), time.monotonic() - begun
        files = (size(server.data), size(server.data + "-wal"))
        print(f"| {passed:.0f} | {rows[0]} | {rows[1]} | {rows[2]} | {files[0]:.0f} | {files[1]:.0f} "
              f"| {percentile(times, 0.99):.1f} | {max(times, default=0):.1f} |", flush=True)
        if not any(rows) and done_after is None:
            done_after = passed
    return done_after is not None and done_after <= WITHIN_SECONDS


def run(arguments, folder):
    server = Server(arguments.binary, folder)
    for user in ("anna", "boris", "mallory"):
        server.add_user(user)
    server.start("--user-bytes-per-day", "0")
    anna = Target(server.address).connect()
    anna.login("anna")
    chat = anna.ask(CREATE_CHAT, text("large"))
    server.stop()
    number = struct.unpack("<I", chat)[0]
    fill(server.data, number, arguments.messages, arguments.indexed)
    server.start("--user-bytes-per-day", "0")
    floods = []
    try:
        if arguments.indexed:
            wait_for_index(server.data, number, arguments.messages)
        times = []
        threading.Thread(target=honest, args=(server.address, times), daemon=True).start()
        for n in range(arguments.senders):
            floods.append(multiprocessing.Process(target=send_on, args=(server.address, n)))
            floods[-1].start()
        time.sleep(3)
        print(f"before: p99 {percentile(times, 0.99):.1f} ms, longest {max(times):.1f} ms")
        anna = Target(server.address).connect()
        anna.login("anna")
        anna.ask(DELETE_CHAT, chat)
        is_done = watch(server, number, times, arguments.seconds)
        for flood in floods:
            flood.kill()
        time.sleep(arguments.quiet)
        print(f"after {arguments.quiet} quiet seconds: {size(server.data):.0f} MiB")
        return is_done
    finally:
        for flood in floods:
            flood.kill()
        server.kill()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=2_400_000)
    parser.add_argument("--senders", type=int, default=4, help="clients that send (default 4)")
    parser.add_argument("--seconds", type=float, default=70, help="seconds to watch (default 70)")
    parser.add_argument("--quiet", type=float, default=15, help="seconds at the end (default 15)")
    parser.add_argument("--indexed", action="store_true")
    parser.add_argument("--binary", default=default_binary())
    arguments = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="vestnik-erasure-")
    try:
        is_done = run(arguments, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print("gone within a minute" if is_done else "rows are left after a minute")
    os._exit(0 if is_done else 1)


if __name__ == "__main__":
    main()
