"""Shared parts of the scripts: the server as a child process, and plain connections.

The wire codec is that of the Python client, `clients/python/purpose`.
"""

import json
import os
import pathlib
import select
import shutil
import socket
import struct
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "clients" / "python")]

from purpose import wire  # noqa: E402
from purpose.errors import Declined, Disconnected  # noqa: E402
from purpose.transport import Link, WebSocket, shake_hands  # noqa: E402,F401  for scripts
from purpose.wire import Reader, frame, text  # noqa: E402

PASSWORD = "correct horse"
LOAD_PASSWORD = "load-password"
WAIT_SECONDS = 30
# Path of the server's WebSocket.
WEB_PATH = "/ws"


def add_transport(parser):
    """Adds the option --ws."""
    parser.add_argument("--ws", action="store_true",
                        help="go through a WebSocket instead of plain TCP")


def unpack_messages(pack):
    """The messages in a pack of 0.1 or 1.0: a list of (id, created, content)."""
    messages = Reader(pack, wire.API_1_0).all(Reader.message)
    return [(message.id, message.created, message.content) for message in messages]


def connect_small(address, source, timeout, receive_bytes):
    """A socket with a small receive buffer.

    It has to be small before it connects: a server that has seen a large window waits for half of
    it, and then sends some 40 KB a second."""
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    plain.settimeout(timeout)
    try:
        plain.bind((source or "", 0))
        plain.connect(address)
    except OSError as error:
        plain.close()
        raise Disconnected(str(error)) from error
    return plain


class Connection:
    """A blocking connection, by default on API 0.1 and optionally from a given source address."""

    def __init__(self, address, *, version=wire.API_0_1, source=None, is_web=False,
                 timeout=WAIT_SECONDS, receive_bytes=None):
        path, plain = WEB_PATH if is_web else None, None
        if receive_bytes:
            plain = connect_small(address, source, timeout, receive_bytes)
        self.link = Link(address, timeout=timeout, path=path, source=source, plain=plain)
        self.timeout = timeout
        # Without a version it says no HELLO.
        if version:
            self.ask(wire.HELLO, bytes(version))

    @property
    def socket(self):
        return self.link.socket

    def send(self, data):
        """Sends frames, or any other bytes."""
        self.link.send(data)

    def next_frame(self):
        """Waits for the next frame of any kind: (purpose, task, body)."""
        found = self.link.receive(time.monotonic() + self.timeout)
        if found is None:
            raise Disconnected(f"nothing came for {self.timeout} s")
        return found

    def frames_now(self):
        """Yields the frames that have arrived, without waiting for more."""
        while (found := self.link.receive(0)) is not None:
            yield found

    def answer(self, task):
        """Waits for the answer to a task: (purpose, body). Notifications are skipped."""
        while True:
            purpose, answered, body = self.next_frame()
            if purpose in (wire.ACCEPTED, wire.DECLINED) and answered == task:
                return purpose, body

    def ask(self, purpose, body=b"", task=255):
        """Sends a request and returns the body of its ACCEPTED; notifications are skipped."""
        self.send(frame(purpose, task, body))
        answer, body = self.answer(task)
        if answer == wire.DECLINED:
            raise Declined(Reader(body).str())
        return body

    def login(self, name, password=PASSWORD):
        """Logs in. Returns the session: (session_id, session_hash with its NUL)."""
        body = self.ask(wire.LOGIN, text(name) + text(password))
        return struct.unpack_from("<I", body)[0], body[4:]

    def restore(self, session):
        self.ask(wire.RESTORE_SESSION, struct.pack("<I", session[0]) + session[1])

    def chat_id(self, name):
        return struct.unpack("<I", self.ask(wire.GET_CHAT_ID, text(name)))[0]

    def history(self, chat, start):
        """Packs of every message from `start` on, as bytes, following `too-large` on 0.1."""
        while True:
            try:
                yield self.ask(wire.REQUEST_CHAT_MSG, struct.pack("<Iq", chat, start))
                return
            except Declined as declined:
                if declined.code != "too-large":
                    raise
                end = declined.number
            yield self.ask(wire.REQUEST_CHAT_MSG, struct.pack("<Iqq", chat, start, end))
            start = end + 1

    def end_stream(self):
        """Ends this side of the stream; answers still arrive."""
        if self.link.web:
            self.link.send_raw(WebSocket.wrap(b"\x03\xe8", WebSocket.CLOSE))
        else:
            self.socket.shutdown(socket.SHUT_WR)

    def reset(self):
        """Closes the connection with a TCP reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self):
        self.link.close()


class Server:
    """`vestnik serve` on one data file, which can be started several times."""

    def __init__(self, binary, folder, wrapper=()):
        self.binary = shutil.which(binary) or os.path.abspath(binary)
        self.data = os.path.join(folder, "t.db")
        self.log = os.path.join(folder, "stderr.txt")
        self.wrapper = list(wrapper)
        self.stuck_log = False
        self.process = None
        self.address = None

    def start(self, *options, iterations=1000, port=0):
        """Starts the server and waits for its `listening` line."""
        command = self.wrapper + [self.binary, "serve", "--data", self.data]
        command += ["--listen", f"127.0.0.1:{port}"]
        command += ["--password-iterations", str(iterations), *options]
        with open(self.log, "ab") as log:
            # With a stuck log, standard error is a pipe that nobody reads.
            errors = subprocess.PIPE if self.stuck_log else log
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
        line = self.next_line()
        if not line.startswith("listening plain "):
            self.kill()
            with open(self.log, encoding="utf-8", errors="replace") as log:
                raise RuntimeError(f"the server did not start: {line!r}\n{log.read()}")
        host, port = line.split()[-1].rsplit(":", 1)
        self.address = (host, int(port))

    def next_line(self):
        """The next line of the server's standard output."""
        deadline = time.monotonic() + WAIT_SECONDS
        line = b""
        while not line.endswith(b"\n"):
            wait = max(0, deadline - time.monotonic())
            if not select.select([self.process.stdout], [], [], wait)[0]:
                break
            chunk = os.read(self.process.stdout.fileno(), 1)
            if not chunk:
                break
            line += chunk
        return line.decode().strip()

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        """Kills the server with SIGKILL."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def stop(self):
        """Stops the server with SIGTERM; returns the exit code."""
        self.process.terminate()
        try:
            return self.process.wait(WAIT_SECONDS)
        finally:
            self.process.kill()
            self.process.stdout.close()

    def resident_bytes(self):
        """Resident memory of the server."""
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as status:
            line = next(line for line in status if line.startswith("VmRSS:"))
        return 1024 * int(line.split()[1])

    def load(self, scenario, *options, is_web=False):
        """Runs the load generator, which must find no fault; returns its metrics."""
        host, port = self.address
        command = [load_generator(self.binary), "run", scenario, "--addr", f"{host}:{port}"]
        command += ["--json", "--warmup", "1", *map(str, options)] + ["--ws"] * is_web
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1])

    def admin(self, *arguments, stdin=None):
        """Runs `vestnik ARGUMENTS --data FILE`, which must succeed; returns its output."""
        done = subprocess.run(
            [self.binary, *arguments, "--data", self.data],
            input=stdin, text=True, check=True, stdout=subprocess.PIPE, timeout=WAIT_SECONDS,
        )
        return done.stdout

    def add_user(self, name, iterations=1000):
        """Adds a user with this number of PBKDF2 rounds."""
        self.admin(
            "user", "add", name, "--password-stdin", "--password-iterations", str(iterations),
            stdin=PASSWORD + "\n",
        )

    def add_members(self, chat, names):
        """Adds users and a chat with all of them as members."""
        for name in names:
            self.add_user(name)
        self.admin("chat", "add", chat, "--admin", names[0])
        for name in names[1:]:
            self.admin("chat", "join", chat, name)


def load_generator(binary):
    """Path of the load generator, which is built next to the server."""
    return os.path.join(os.path.dirname(os.path.abspath(binary)), "vestnik-load")


def default_binary():
    """Path of the release binary of this repository."""
    return str(ROOT / "target" / "release" / "vestnik")
