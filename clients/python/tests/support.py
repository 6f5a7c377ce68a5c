"""What the tests share: the real server, a way to it that can be cut, and a client's events.

The server is the binary that VESTNIK_BINARY names, or else target/debug/vestnik of this repository.
"""

import os
import pathlib
import socket
import sys
import tempfile
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent.parent
sys.path[:0] = [str(HERE.parent), str(ROOT / "scripts")]

from harness import PASSWORD, Server  # noqa: E402
from purpose import Client, Declined, wire  # noqa: E402

from .fake import Listener  # noqa: E402

BINARY = os.environ.get("VESTNIK_BINARY", str(ROOT / "target" / "debug" / "vestnik"))
NAMES = ["anna", "boris", "vera"]


class Gate(Listener):
    """A way to the server that can be cut: what a bad network is to a client."""

    def __init__(self, target):
        super().__init__()
        self.target, self.pairs, self.is_open = target, [], True
        self.over = []
        self.swallow_answers = False
        self.address = self.listener.getsockname()
        self.start(self.accept_all)

    def accepted(self, client):
        if not self.is_open:
            client.close()
            return
        server = socket.create_connection(self.target)
        self.pairs.append((client, server))
        for source, sink in ((client, server), (server, client)):
            self.start(self._copy, source, sink, source is server)

    def _copy(self, source, sink, is_answer):
        try:
            while chunk := source.recv(1 << 16):
                if not (is_answer and self.swallow_answers):
                    sink.sendall(chunk)
        except OSError:
            pass
        self._end(source, sink)

    @staticmethod
    def _end(*ends):
        for end in ends:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def cut(self):
        """Ends every connection that there is."""
        pairs, self.pairs = self.pairs, []
        for pair in pairs:
            self._end(*pair)
            self.over += pair
        self.swallow_answers = False

    def close(self):
        self._end(self.listener)
        self.listener.close()
        self.cut()
        for thread in self.threads:
            thread.join()
        for end in self.over:
            end.close()


class WithServer(unittest.TestCase):
    """One server with the chat `hall` and its three members; tests make chats of their own."""

    options = ("--registration", "open")

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.server = Server(BINARY, cls.folder.name)
        cls.server.start(*cls.options)
        cls.addClassCleanup(cls.server.stop)
        cls.server.add_members("hall", NAMES)

    def client(self, name=None, address=None, **options):
        client = Client(address or self.server.address, timeout=20, **options)
        self.addCleanup(lambda: client._link.close())
        if name:
            client.login(name, PASSWORD)
        return client

    def gate(self):
        gate = Gate(self.server.address)
        self.addCleanup(gate.close)
        return gate

    def collect(self, client, event="message"):
        """The list into which the events of a client go."""
        events = []
        client.on(event)(lambda *values: events.append(values))
        return events

    def pump(self, client, until, seconds=20):
        """Hands over events until it is so."""
        deadline = time.monotonic() + seconds
        while not until():
            self.assertLess(time.monotonic(), deadline, "it did not happen")
            client.poll(0.1)

    def settle(self, client):
        """Hands over what there is, up to an answer that comes after it."""
        client.request(wire.HEARTBEAT)
        while client.poll(0):
            pass

    def assertDeclined(self, code, call, *values):
        with self.assertRaises(Declined) as caught:
            call(*values)
        self.assertEqual(caught.exception.code, code)
        return caught.exception
