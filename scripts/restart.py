#!/usr/bin/env python3
"""Measures the time from start to the `listening` line on a large database.

Makes a database with a number of messages and starts the server on it N times each: after a
graceful shutdown, and after kill -9 under durable load, when the WAL still has to be checkpointed.
The database is in the page cache; with --cold the script asks the system to drop it before each
start. Prints a Markdown table and removes its files.

Exit code 0: done. 1: a median is over --limit-ms, or the server does not start.
"""

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import default_binary, load_generator

CHATS = 10
STARTED = []


def start(binary, data):
    """Starts the server; gives it, its address, and the milliseconds until it listened."""
    words = [binary, "serve", "--data", data, "--listen", "127.0.0.1:0", "--password-iterations", "1"]
    begun = time.perf_counter()
    server = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    STARTED.append(server)
    line = server.stdout.readline()
    took_ms = 1000 * (time.perf_counter() - begun)
    if not line:
        sys.exit("the server does not start")
    return server, line.split()[-1].decode(), took_ms


def forget(data):
    """Asks the system to drop what it keeps of the file."""
    for name in (data, data + "-wal"):
        if os.path.exists(name):
            with open(name, "rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run(binary, data, runs, is_killed, is_cold):
    """Starts and ends the server; gives the times of the starts and the sizes of the logs found."""
    times, logs = [], []
    # The first start is on a file that nobody has ended in this way.
    for count in range(runs + 1):
        log = Path(data + "-wal")
        found = log.stat().st_size if log.exists() else 0
        if is_cold:
            forget(data)
        server, address, took_ms = start(binary, data)
        if count > 0:
            times.append(took_ms)
            logs.append(found)
        if is_killed:
            words = [load_generator(binary), "run", "durable", "--addr", address, "--warmup", "0"]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            load = subprocess.Popen([*words, "--seconds", "5"], **quiet)
            STARTED.append(load)
            time.sleep(1.5)
            server.kill()
            load.wait()
        else:
            server.terminate()
        server.wait()
    return times, logs


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=10_000_000, metavar="N",
                        help="stored messages (default 10000000: some 1.4 GB)")
    parser.add_argument("--runs", type=int, default=5, metavar="N")
    parser.add_argument("--folder", metavar="DIR",
                        help="folder of the data file (default: the system's temporary folder)")
    parser.add_argument("--cold", action="store_true", help="drop the page cache before each start")
    parser.add_argument("--limit-ms", type=float, metavar="MS",
                        help="fail if a median is over this")
    parser.add_argument("--binary", default=default_binary())
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = tempfile.mkdtemp(prefix="vestnik-restart-", dir=options.folder)
    try:
        data = os.path.join(folder, "vestnik.db")
        per_chat = max(options.messages // CHATS, 1)
        words = ["--users", "64", "--chats", str(CHATS), "--messages", str(per_chat)]
        subprocess.run([options.binary, "load", "prepare", "--data", data, *words],
                       check=True, stdout=subprocess.DEVNULL)
        print("| end before the start | log found, KiB | to the line, ms: median | longest |")
        print("| --- | --- | --- | --- |")
        is_slow = False
        for name, is_killed in (("gracefully", False), ("kill -9 under load", True)):
            times, logs = run(options.binary, data, options.runs, is_killed, options.cold)
            median = statistics.median(times)
            is_slow |= options.limit_ms is not None and median > options.limit_ms
            print(f"| {name} | {max(logs) // 1024} | {median:.1f} | {max(times):.1f} |", flush=True)
    finally:
        for process in STARTED:
            process.kill()
            process.wait()
        shutil.rmtree(folder)
    sys.exit(1 if is_slow else 0)


if __name__ == "__main__":
    main()
