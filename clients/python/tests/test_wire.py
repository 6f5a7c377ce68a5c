"""The codec alone, and what else needs no server."""

import io
import random
import re
import struct
import unittest

from purpose import (
    API_1_0, API_1_1, Client, Declined, File, Message, ProtocolError, Reaction, ReactionChange,
    transport, wire,
)
from purpose.chat_copy import with_reaction

from .support import ROOT

# Purposes whose calls have other names, or none.
CALLS = {"HELLO": "server", "RESTORE_SESSION": "restore", "HEARTBEAT": "poll",
         "DISCONNECT": "close"}
FROM_SERVER = ("ACCEPTED", "DECLINED", "PART", "DEAUTH")
EXTRAS = ("REPLY", "FILE", "REACTIONS", "ATTACH")


class Pieces(unittest.TestCase):
    """What needs no server."""

    def test_addresses(self):
        self.assertEqual(transport.split_address("[::1]:7420"), ("::1", 7420))
        with self.assertRaises(ValueError):
            Client("localhost")

    def test_text_holds_no_nul(self):
        with self.assertRaises(ValueError):
            wire.text("a\0b")

    def test_a_body_that_ends_early(self):
        for body in (b"\1\2", b"\1\0\0\0abc", b"\1\0\0\0\xff\0"):
            with self.assertRaises(ProtocolError):
                reader = wire.Reader(body)
                reader.u32(), reader.str()

    def test_the_number_of_a_decline(self):
        self.assertEqual(Declined("rate-limited: try again in 7 seconds").number, 7)
        self.assertIsNone(Declined("forbidden: no").number)

    def test_every_purpose_of_the_document(self):
        page = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
        rows = re.findall(r"^\| 0x([0-9A-F]{2}) \| ([A-Z_]+)\b", page, re.M)
        self.assertGreater(len(rows), 70)
        for byte, name in rows:
            self.assertEqual(getattr(wire, name, None), int(byte, 16), name)
            is_call = not name.endswith("_NOTIFY") and name not in FROM_SERVER + EXTRAS
            if is_call and name != "CHAT_GONE":
                # An attribute of an instance, such as `server`, is no attribute of the class.
                call = CALLS.get(name, name.lower())
                self.assertTrue(call == "server" or hasattr(Client, call), name)

    def test_extras(self):
        file = struct.pack("<QQHH", 7, 1000, 640, 480) + b"image/png\0a.png\0"
        reactions = "👍".encode() + b"\0" + struct.pack("<HBII", 5, 2, 3, 4)
        entries = [(wire.REPLY, wire.U64.pack(9)), (wire.FILE, file), (0x7F, b"of the future"),
                   (wire.REACTIONS, reactions)]
        extras = b"".join(struct.pack("<BH", kind, len(body)) + body for kind, body in entries)
        body = struct.pack("<QIqqB", 1, 2, 3, 4, 1) + b"text\0"
        whole = body + wire.U16.pack(len(extras)) + extras
        message = wire.Reader(whole).message()
        self.assertEqual(message, Message(
            1, 2, 3, 4, 1, "text", 9, (File(7, 1000, 640, 480, "image/png", "a.png"),),
            (Reaction("👍", 5, (3, 4)),), False,
        ))
        self.assertEqual(wire.Reader(body, API_1_0).message().files, ())
        self.assertEqual(wire.Reader(body + b"\0\0").message()[:6], message[:6])
        for end in range(len(body), len(whole)):
            with self.assertRaises(ProtocolError):
                wire.Reader(whole[:end]).message()
        sent = wire.sent_extras(9, [5])
        self.assertEqual(sent, b"\1\x08\0" + wire.U64.pack(9) + b"\4\x08\0" + wire.U64.pack(5))

    def test_any_bytes_are_read_or_declined(self):
        dice = random.Random(3)
        reads = [wire.Reader.message, wire.Reader.chat_info, wire.Reader.hello, wire.Reader.invite,
                 wire.Reader.reaction_change, wire.Reader.user, wire.Reader.session]
        for _ in range(20_000):
            body = bytes(dice.choice((0, 0, 1, 2, 65, 200)) for _ in range(dice.randrange(80)))
            try:
                wire.Reader(body, dice.choice((API_1_0, API_1_1))).all(dice.choice(reads))
            except ProtocolError:
                pass

    def test_frames_come_in_any_pieces(self):
        stream = b"".join(wire.frame(wire.HEARTBEAT, task, b"x" * task) for task in range(50))
        buffer, found = bytearray(), []
        for byte in stream:
            buffer.append(byte)
            found += wire.take_frames(buffer)
        self.assertEqual([(task, len(body)) for _, task, body in found],
                         [(task, task) for task in range(50)])
        self.assertEqual(buffer, b"")

    def test_reactions_change_a_message(self):
        message = Message(1, 2, 3, 3, 0, "text")
        for user in range(1, 23):
            message = with_reaction(message, ReactionChange(1, 10 + user, user, True, "a"))
        message = with_reaction(message, ReactionChange(1, 40, 5, True, "b"))
        self.assertEqual(message.reactions, (
            Reaction("a", 22, tuple(range(1, 21))), Reaction("b", 1, (5,)),
        ))
        message = with_reaction(message, ReactionChange(1, 41, 22, False, "a"))
        message = with_reaction(message, ReactionChange(1, 42, 5, False, "b"))
        self.assertEqual(message.reactions, (Reaction("a", 21, tuple(range(1, 21))),))
        self.assertEqual(message.updated, 42)

    def test_sources_of_a_file(self):
        from purpose.files import _opened
        stream = io.BytesIO(b"0123456789")
        stream.seek(4)
        with _opened(stream) as (source, size, name):
            self.assertEqual((source.read(), size, name), (b"456789", 6, ""))
        with _opened(memoryview(b"abc")) as (source, size, _):
            self.assertEqual((source.read(), size), (b"abc", 3))
