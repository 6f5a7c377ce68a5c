#!/usr/bin/env python3
"""A chat in a terminal, over the Purpose protocol, with nothing but Python's standard library.

    python3 scripts/chat.py --user anna --chat kitchen [--join-password P] [--server ADDR:PORT]

What you type is sent; what others say is shown. When the connection breaks, the script comes back
with the session that it has, shows exactly what was said meanwhile, and sends what was typed
meanwhile: once, even if the first try had reached the server. An empty end of input (Ctrl-D)
leaves. docs/protocol.md defines the bytes.
"""

import argparse
import collections
import getpass
import os
import random
import select
import socket
import ssl
import struct
import sys
import time

ACCEPTED, DECLINED, HEARTBEAT, DISCONNECT, PART = 0x00, 0x01, 0x02, 0x03, 0x04
HELLO, LOGIN, LOGOFF, RESTORE_SESSION = 0x20, 0x21, 0x22, 0x23
GET_CHAT_ID, JOIN_CHAT, SEND_CHAT_MSG, REQUEST_CHAT_MSG = 0x25, 0x27, 0x28, 0x29
GET_USER, REQUEST_CHAT_PAGE = 0x32, 0x4A
MSG_NOTIFY, DEAUTH, CHAT_GONE = 0x20, 0x22, 0x31

EDITED, DELETED = 0x01, 0x02
PAGE = 20  # messages shown when the chat is entered
ANSWER_TIMEOUT_S = 100  # the server shows life at least every 90 s


class Declined(Exception):
    """The server said no; `code` is the part of its words that never changes."""

    def __init__(self, words):
        super().__init__(words)
        self.code = words.split(":")[0]


class Broken(Exception):
    """The connection is gone; the session may not be."""


def text(value):
    """A str of the protocol."""
    return value.encode() + b"\0"


class Body:
    """Reads the fields of a body, one after the other."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def number(self, kind):
        (value,) = struct.unpack_from("<" + kind, self.data, self.at)
        self.at += struct.calcsize("<" + kind)
        return value

    def text(self):
        end = self.data.index(b"\0", self.at)
        value = self.data[self.at : end].decode()
        self.at = end + 1
        return value

    def messages(self):
        """A pack of messages, up to the end of the body."""
        while self.at < len(self.data):
            yield Message(self)


class Message:
    """One message, or what became of it."""

    def __init__(self, body):
        self.id, self.sender = body.number("Q"), body.number("I")
        self.created, self.updated = body.number("q"), body.number("q")
        self.status, self.content = body.number("B"), body.text()


class Connection:
    """Frames over a socket. Answers are returned; what comes unasked waits in `notices`."""

    def __init__(self, address, tls):
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        try:
            self.socket = socket.create_connection((host, int(port)), timeout=ANSWER_TIMEOUT_S)
            if tls:
                self.socket = tls.wrap_socket(self.socket, server_hostname=host)
        except OSError as error:
            raise Broken(error) from None
        self.buffer = b""
        self.task = 0
        self.notices = collections.deque()
        self.ask(HELLO, struct.pack("<BB", 1, 0))

    def write(self, purpose, task, body=b""):
        try:
            self.socket.sendall(struct.pack("<IBB", len(body), purpose, task) + body)
        except OSError as error:
            raise Broken(error) from None

    def read(self):
        """The next frame: purpose, task and body."""
        while True:
            if len(self.buffer) >= 6:
                length, purpose, task = struct.unpack_from("<IBB", self.buffer)
                if len(self.buffer) >= 6 + length:
                    body, self.buffer = self.buffer[6 : 6 + length], self.buffer[6 + length :]
                    return purpose, task, body
            self.receive()

    def receive(self):
        try:
            data = self.socket.recv(65536)
        except OSError as error:
            raise Broken(error) from None
        if not data:
            raise Broken("the server has closed the connection")
        self.buffer += data

    def take_input(self, is_ready):
        """Takes the frames that are here; bytes that are read already make no socket ready."""
        while is_ready or len(self.buffer) >= 6 or self.pending():
            self.take_unasked(*self.read())
            is_ready = False

    def pending(self):
        return isinstance(self.socket, ssl.SSLSocket) and self.socket.pending()

    def take_unasked(self, purpose, task, body):
        """Takes a frame that is no answer."""
        if purpose == HEARTBEAT:
            self.write(ACCEPTED, task, body)
        elif purpose == DISCONNECT:
            raise Broken("the server is closing the connection")
        elif purpose == DEAUTH:
            raise Broken("the session was taken over or has ended")
        else:
            self.notices.append((purpose, body))

    def ask(self, purpose, body=b""):
        """Sends a request and returns the body of its answer, assembled from its parts."""
        self.task = self.task % 255 + 1
        self.write(purpose, self.task, body)
        parts = []
        while True:
            purpose, task, body = self.read()
            if purpose not in (ACCEPTED, DECLINED, PART) or task != self.task:
                self.take_unasked(purpose, task, body)
            elif purpose == DECLINED:
                raise Declined(Body(body).text())
            else:
                parts.append(body)
                if purpose == ACCEPTED:
                    return b"".join(parts)


class Chat:
    """One user in one chat, over as many connections as it takes."""

    def __init__(self, options, password, tls):
        self.options, self.tls = options, tls
        self.names = {}
        self.unsent = collections.deque()  # (nonce, content), the oldest first
        self.seen = 0  # everything of the chat up to this time has been shown
        self.connection = Connection(options.server, tls)
        body = Body(self.ask(LOGIN, text(options.user) + text(password)))
        self.session, self.secret, self.me = body.number("I"), body.text(), body.number("I")
        self.names[self.me] = options.user
        self.chat = Body(self.ask(GET_CHAT_ID, text(options.chat))).number("I")
        self.join()
        page = self.ask(REQUEST_CHAT_PAGE, struct.pack("<IQH", self.chat, 0, PAGE))
        for message in Body(page).messages():
            self.show(message)
            self.seen = max(self.seen, message.updated)

    def ask(self, purpose, body=b""):
        return self.connection.ask(purpose, body)

    def join(self):
        password = self.options.join_password
        body = struct.pack("<I", self.chat) + (text(password) if password is not None else b"")
        try:
            self.ask(JOIN_CHAT, body)
        except Declined as reason:
            if reason.code != "already-member":
                raise

    def come_back(self):
        """Connects again, restores the session, and shows what was missed."""
        for wait in [0, 0.2, 0.5, 1, 2] + [5] * 1000:
            time.sleep(wait)
            try:
                self.connection = Connection(self.options.server, self.tls)
                self.ask(RESTORE_SESSION, struct.pack("<I", self.session) + text(self.secret))
                self.catch_up()
                note("back again")
                return self.send_unsent()
            except Broken:
                continue
            except Declined as reason:
                if reason.code not in ("rate-limited", "storage-failed", "shutting-down"):
                    raise
        raise SystemExit("the server does not come back")

    def catch_up(self):
        """Shows what is newer than what was shown; notices that came meanwhile wait their turn."""
        missed = self.ask(REQUEST_CHAT_MSG, struct.pack("<Iq", self.chat, self.seen + 1))
        for message in Body(missed).messages():
            self.take(message)

    def take(self, message):
        """Shows a message unless it was shown: the messages of a chat come in the order of their
        times, so one number identifies what is known."""
        if message.updated > self.seen:
            self.show(message)
            self.seen = message.updated

    def take_notices(self):
        while self.connection.notices:
            purpose, data = self.connection.notices.popleft()
            body = Body(data)
            if purpose == MSG_NOTIFY and body.number("I") == self.chat:
                for message in body.messages():
                    self.take(message)
            elif purpose == CHAT_GONE and body.number("I") == self.chat:
                raise SystemExit("you are no longer in this chat")

    def say(self, lines):
        # The number makes a second try the same message as the first.
        self.unsent.extend((random.getrandbits(64), line) for line in lines)
        self.send_unsent()

    def send_unsent(self):
        while self.unsent:
            nonce, content = self.unsent[0]
            body = struct.pack("<I", self.chat) + text(content) + struct.pack("<Q", nonce)
            try:
                answer = Body(self.ask(SEND_CHAT_MSG, body))
            except Declined as reason:
                note(f"not sent: {reason}")
            else:
                # What others said before it has come before the answer.
                self.take_notices()
                answer.number("Q")
                self.seen = max(self.seen, answer.number("q"))
            self.unsent.popleft()

    def show(self, message):
        when = time.strftime("%H:%M:%S", time.localtime(message.created / 1e6))
        content = "(deleted)" if message.status & DELETED else message.content
        mark = " (edited)" if message.status == EDITED else ""
        print(f"[{when}] {self.name(message.sender)}: {printable(content)}{mark}", flush=True)

    def name(self, user):
        if user not in self.names:
            body = Body(self.ask(GET_USER, struct.pack("<I", user)))
            body.number("I"), body.number("B"), body.number("q")
            self.names[user] = body.text()
        return self.names[user]

    def leave(self):
        """Ends the session: who comes again logs in again."""
        self.ask(LOGOFF)
        self.connection.write(DISCONNECT, 0)

    def run(self, lines):
        """Shows and sends until the input ends and all of it is sent."""
        while not lines.ended or self.unsent:
            try:
                self.connection.take_input(is_ready=False)
                self.take_notices()
                connection = self.connection.socket
                ready, _, _ = select.select([connection, lines.file], [], [])
                self.connection.take_input(connection in ready)
                self.take_notices()
                if lines.file in ready:
                    self.say(lines.read())
            except Broken as why:
                note(f"{why}: connecting again")
                self.come_back()
        self.leave()


class Lines:
    """Lines of standard input as they come, without waiting for one."""

    def __init__(self):
        self.file, self.rest, self.ended = sys.stdin.fileno(), b"", False

    def read(self):
        data = os.read(self.file, 65536)
        self.ended = not data
        *lines, self.rest = (self.rest + data).split(b"\n")
        if self.ended and self.rest:
            lines.append(self.rest)
        texts = [line.decode(errors="replace").replace("\0", "") for line in lines]
        return [line for line in texts if line.strip()]


def printable(content):
    """Without what could move the cursor or change colours."""
    return "".join(c if c.isprintable() else " " for c in content)


def note(words):
    print(f"-- {words}", file=sys.stderr, flush=True)


def arguments():
    parser = argparse.ArgumentParser(description="A chat in a terminal.")
    parser.add_argument("--user", required=True, help="who you are")
    parser.add_argument("--chat", required=True, help="which chat")
    parser.add_argument("--join-password", help="the chat's password, when you come first")
    parser.add_argument("--server", default="127.0.0.1:7420", help="ADDR:PORT (%(default)s)")
    parser.add_argument("--tls", action="store_true", help="speak TLS")
    parser.add_argument("--ca", help="trust this certificate (PEM) instead of the system's")
    parser.add_argument(
        "--password-stdin", action="store_true", help="your password is the first line of input"
    )
    return parser.parse_args()


def main():
    options = arguments()
    if options.password_stdin:
        password = b""
        while not password.endswith(b"\n") and (byte := os.read(sys.stdin.fileno(), 1)):
            password += byte
        password = password.decode().rstrip("\n")
    else:
        password = getpass.getpass(f"Password of {options.user}: ")
    tls = ssl.create_default_context(cafile=options.ca) if options.tls else None
    try:
        chat = Chat(options, password, tls)
        note(f"you are {options.user} in {options.chat}; Ctrl-D leaves")
        chat.run(Lines())
    except (Declined, Broken) as why:
        raise SystemExit(f"chat.py: {why}") from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
