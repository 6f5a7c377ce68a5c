#!/usr/bin/env python3
"""An example client for the terminal: sends typed lines and prints the messages of a chat.

    python3 chat.py --user anna --chat kitchen [--join-password P] [--server ADDR:PORT]

When the connection breaks it reconnects by itself, and prints exactly what was said meanwhile. End
of input (Ctrl-D) quits. For daily use there is `vestnik client`.
"""

import argparse
import getpass
import os
import pathlib
import select
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from purpose import Client, Declined, Disconnected, PurposeError

PAGE = 20  # messages shown when the chat is entered


class Chat:
    """One user in one chat, over any number of connections."""

    def __init__(self, options, password):
        self.client = client = Client(options.server, tls=options.tls, ca_file=options.ca)
        client.login(options.user, password)
        self.names, self.unfinished, self.is_over = {client.user_id: options.user}, b"", False
        self.chat = client.get_chat_id(options.chat)
        client.join_chat(self.chat, options.join_password)
        page = client.request_chat_page(self.chat, limit=PAGE)
        for message in page:
            self.show(message)
        client.watch(self.chat, max((message.updated + 1 for message in page), default=0))
        client.on("message")(lambda chat, message: chat == self.chat and self.show(message))
        client.on("reconnect")(lambda: note("back again"))
        client.on("chat_gone")(self.gone)

    def gone(self, chat):
        if chat == self.chat:
            raise SystemExit("you are no longer in this chat")

    def show(self, message):
        when = time.strftime("%H:%M:%S", time.localtime(message.created / 1e6))
        content = "(deleted)" if message.is_deleted else message.content
        files = "".join(f" [{file.name}, {file.size} bytes]" for file in message.files)
        reactions = "".join(f" {one.emoji}{one.count}" for one in message.reactions)
        mark = " (edited)" if message.is_edited and not message.is_deleted else ""
        line = printable(content + files + reactions + mark)
        print(f"[{when}] {self.name(message.sender)}: {line}", flush=True)

    def name(self, user):
        if user not in self.names:
            self.names[user] = self.client.get_user(user).nickname
        return self.names[user]

    def read_lines(self):
        """Sends the typed lines. A break neither loses a line nor sends it twice."""
        data = os.read(sys.stdin.fileno(), 65536)
        *lines, self.unfinished = (self.unfinished + data).split(b"\n")
        if not data:
            self.is_over, lines = True, [self.unfinished]
        for line in lines:
            content = line.decode(errors="replace").replace("\0", "")
            if not content.strip():
                continue
            try:
                self.client.send(self.chat, content)
            except Declined as declined:
                note(f"not sent: {declined}")

    def run(self):
        while not self.is_over:
            try:
                while self.client.poll(0):
                    pass
            except Disconnected as broken:
                note(f"{broken}: connecting again")
                self.client.reconnect()
                continue
            ready, _, _ = select.select([self.client, sys.stdin], [], [], 30)
            if sys.stdin in ready:
                self.read_lines()
        self.client.logoff()
        self.client.close()


def printable(content):
    """Removes characters that could move the cursor or change colours."""
    return "".join(c if c.isprintable() else " " for c in content)


def note(words):
    print(f"-- {words}", file=sys.stderr, flush=True)


def arguments():
    parser = argparse.ArgumentParser(description="A chat in a terminal.")
    parser.add_argument("--user", required=True, help="who you are")
    parser.add_argument("--chat", required=True, help="which chat")
    parser.add_argument("--join-password", help="the chat's password, to join it")
    parser.add_argument("--server", default="127.0.0.1:7420",
                        help="ADDR:PORT, ws://… or wss://… (%(default)s)")
    parser.add_argument("--tls", action="store_true", help="speak TLS")
    parser.add_argument("--ca", help="trust this certificate (PEM) instead of the system's")
    parser.add_argument("--password-stdin", action="store_true",
                        help="your password is the first line of input")
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
    try:
        chat = Chat(options, password)
        note(f"you are {options.user} in {options.chat}; Ctrl-D leaves")
        chat.run()
    except PurposeError as why:
        raise SystemExit(f"chat.py: {why}") from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
