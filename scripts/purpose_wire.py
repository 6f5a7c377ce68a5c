"""What the scripts next to this file share: the server as a child process, and frames of protocol.md.

Standard library only. Not a client library: it knows just what the scripts need.
"""

import os
import select
import shutil
import socket
import struct
import subprocess
import time

ACCEPTED, DECLINED, HEARTBEAT, DISCONNECT = 0x00, 0x01, 0x02, 0x03
HELLO, LOGIN, RESTORE_SESSION, GET_CHAT_ID = 0x20, 0x21, 0x23, 0x25
SEND_CHAT_MSG, REQUEST_CHAT_MSG = 0x28, 0x29
MSG_NOTIFY = 0x20

PASSWORD = "correct horse"
HEADER = struct.Struct("<IBB")
MESSAGE = struct.Struct("<QIqqB")
WAIT_SECONDS = 30


def frame(purpose, task, body=b""):
    """One frame as bytes."""
    return HEADER.pack(len(body), purpose, task) + body


def text(value):
    """A str with its NUL."""
    return value.encode() + b"\0"


def take_frames(buffer):
    """Takes the whole frames out of a bytearray: a list of (purpose, task, body)."""
    frames, at = [], 0
    while len(buffer) - at >= HEADER.size:
        length, purpose, task = HEADER.unpack_from(buffer, at)
        end = at + HEADER.size + length
        if end > len(buffer):
            break
        frames.append((purpose, task, bytes(buffer[at + HEADER.size : end])))
        at = end
    del buffer[:at]
    return frames


def unpack_messages(pack):
    """The entries of a pack of message: a list of (id, created, content)."""
    messages, at = [], 0
    while at < len(pack):
        message_id, _sender, created, _updated, _status = MESSAGE.unpack_from(pack, at)
        end = pack.index(b"\0", at + MESSAGE.size)
        messages.append((message_id, created, pack[at + MESSAGE.size : end].decode()))
        at = end + 1
    return messages


class Declined(Exception):
    """The server said DECLINED."""


class Connection:
    """A blocking connection on API 0.1."""

    def __init__(self, address):
        self.socket = socket.create_connection(address, timeout=WAIT_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray()
        self.frames = []
        self.ask(HELLO, b"\0\x01")

    def next_frame(self):
        """The next frame, whatever it is."""
        while not self.frames:
            chunk = self.socket.recv(1 << 18)
            if not chunk:
                raise ConnectionError("the server ended the stream")
            self.buffer += chunk
            self.frames = take_frames(self.buffer)
        return self.frames.pop(0)

    def ask(self, purpose, body=b"", task=255):
        """Sends a request and returns the body of its ACCEPTED; notifications are skipped."""
        self.socket.sendall(frame(purpose, task, body))
        while True:
            answer, answered, body = self.next_frame()
            if answer in (ACCEPTED, DECLINED) and answered == task:
                if answer == DECLINED:
                    raise Declined(body[:-1].decode())
                return body

    def login(self, name):
        """A session of the user: (session_id, session_hash with its NUL)."""
        body = self.ask(LOGIN, text(name) + text(PASSWORD))
        return struct.unpack_from("<I", body)[0], body[4:]

    def restore(self, session):
        self.ask(RESTORE_SESSION, struct.pack("<I", session[0]) + session[1])

    def chat_id(self, name):
        return struct.unpack("<I", self.ask(GET_CHAT_ID, text(name)))[0]

    def history(self, chat, start):
        """Packs of every message from `start` on, as bytes, following `too-large`."""
        while True:
            try:
                yield self.ask(REQUEST_CHAT_MSG, struct.pack("<Iq", chat, start))
                return
            except Declined as declined:
                if not str(declined).startswith("too-large: "):
                    raise
                end = int("".join(filter(str.isdigit, str(declined))))
            yield self.ask(REQUEST_CHAT_MSG, struct.pack("<Iqq", chat, start, end))
            start = end + 1

    def close(self):
        self.socket.close()


class Server:
    """`vestnik serve` on one file, started as often as wanted."""

    def __init__(self, binary, folder, wrapper=()):
        self.binary = shutil.which(binary) or os.path.abspath(binary)
        self.data = os.path.join(folder, "t.db")
        self.log = os.path.join(folder, "stderr.txt")
        self.wrapper = list(wrapper)
        self.stuck_log = False
        self.process = None
        self.address = None

    def start(self, *options, iterations=1000):
        """Starts the server and waits for its `listening` line."""
        command = self.wrapper + [self.binary, "serve", "--data", self.data]
        command += ["--listen", "127.0.0.1:0", "--password-iterations", str(iterations), *options]
        with open(self.log, "ab") as log:
            # With a stuck log, standard error is a pipe that nobody reads.
            errors = subprocess.PIPE if self.stuck_log else log
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
        line = self._first_line()
        if not line.startswith("listening plain "):
            self.kill()
            with open(self.log, encoding="utf-8", errors="replace") as log:
                raise RuntimeError(f"the server did not start: {line!r}\n{log.read()}")
        host, port = line.split()[-1].rsplit(":", 1)
        self.address = (host, int(port))

    def _first_line(self):
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

    def kill(self):
        """kill -9."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def stop(self):
        """SIGTERM; returns the exit code."""
        self.process.terminate()
        try:
            return self.process.wait(WAIT_SECONDS)
        finally:
            self.process.kill()
            self.process.stdout.close()

    def admin(self, *arguments, stdin=None):
        """Runs `vestnik ARGUMENTS --data FILE`, which must succeed."""
        subprocess.run(
            [self.binary, *arguments, "--data", self.data],
            input=stdin, text=True, check=True, stdout=subprocess.DEVNULL, timeout=WAIT_SECONDS,
        )

    def add_user(self, name, iterations=1000):
        """A user, whose password costs that many rounds."""
        self.admin(
            "user", "add", name, "--password-stdin", "--password-iterations", str(iterations),
            stdin=PASSWORD + "\n",
        )

    def add_members(self, chat, names):
        """Users, and a chat of which all of them are members."""
        for name in names:
            self.add_user(name)
        self.admin("chat", "add", chat, "--admin", names[0])
        for name in names[1:]:
            self.admin("chat", "join", chat, name)


def default_binary():
    """The release binary of the repository that this file lies in."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return os.path.join(root, "target", "release", "vestnik")


def load_generator(binary):
    """The load generator, which is built next to the server."""
    return os.path.join(os.path.dirname(os.path.abspath(binary)), "vestnik-load")
