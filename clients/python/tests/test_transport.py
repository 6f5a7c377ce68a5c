"""The same calls over WebSocket and TLS."""

import os
import random
import ssl
import subprocess
import tempfile
import threading

from purpose import Client, Disconnected, ProtocolError, WebSocket

from .support import BINARY, WithServer


class ThroughWebSocket(WithServer):
    """The same bytes as messages of a WebSocket."""

    def url(self, path="/ws"):
        host, port = self.server.address
        return f"ws://{host}:{port}{path}"

    def test_two_people_talk(self):
        with self.client("anna", self.url()) as anna, self.client("boris", self.url("")) as boris:
            hall = anna.get_chat_id("hall")
            said = self.collect(boris)
            for size in (1, 100, 125, 126, 5000, 16_000):
                anna.send(hall, "x" * size)
            self.pump(boris, lambda: len(said) == 6)
            self.assertEqual([len(message.content) for _, message in said][-1], 16_000)
            page = anna.request_chat_msg(hall, 0)
            self.assertGreaterEqual(len(list(page)), 6)

    def test_a_cut_is_mended(self):
        gate = self.gate()
        with self.client("anna", f"ws://127.0.0.1:{gate.address[1]}/ws") as anna:
            hall = anna.get_chat_id("hall")
            anna.send(hall, "before")
            gate.cut()
            self.assertTrue(anna.send(hall, "after").id)

    def test_what_is_no_websocket(self):
        with self.assertRaises(Disconnected) as caught:
            Client(self.url("/nothing"), timeout=20, retry_seconds=0)
        self.assertIn("404", str(caught.exception))
        with self.assertRaises(ValueError):
            Client("http://127.0.0.1/ws")

    def test_frames_of_every_form(self):
        layer = WebSocket()
        stream = b"\x82\x02hi\x89\x01p\x02\x01a\x80\x01b\x82\x7e\x00\x80" + b"z" * 128 + b"\x88\x02\x03\xe8"
        got = b"".join(layer.unwrap(stream[at : at + 1]) for at in range(len(stream)))
        self.assertEqual(got, b"hiab" + b"z" * 128)
        self.assertTrue(layer.is_over)
        answers = layer.take_replies()
        self.assertEqual((answers[0], answers[1]), (0x8A, 0x81))
        self.assertEqual(answers[6] ^ answers[2], ord("p"))
        self.assertEqual(answers[7], 0x88)
        for wrong in (
            b"\xc2\x00", b"\x81\x00", b"\x82\x80",
            # A long Ping, one in pieces, and a Close with half a code.
            b"\x89\x7e\x00\x7e" + b"p" * 126, b"\x09\x01p", b"\x88\x01\x03",
            # A continuation of nothing, and a message inside another one.
            b"\x80\x01a", b"\x02\x01a\x82\x01b",
            # Lengths that are longer than they need be.
            b"\x82\x7e\x00\x05hello", b"\x82\x7f" + b"\0" * 6 + b"\xff\xffz",
        ):
            with self.assertRaises(ProtocolError, msg=wrong):
                WebSocket().unwrap(wrong)

    def test_a_flood_of_pings_costs_one_pong(self):
        layer = WebSocket()
        for number in range(1000):
            layer.unwrap(b"\x89\x04%04d" % number)
        (fin_and_opcode, size), mask, payload = (
            (pong := layer.take_replies())[:2], pong[2:6], pong[6:]
        )
        self.assertEqual((fin_and_opcode, size, len(payload)), (0x8A, 0x84, 4))
        self.assertEqual(bytes(a ^ b for a, b in zip(mask, payload)), b"0999")


class OverTls(WithServer):
    """The server's certificate is known by its fingerprint, by who signed it, or not at all."""

    @classmethod
    def setUpClass(cls):
        cls.pair = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.pair.cleanup)
        cls.cert = os.path.join(cls.pair.name, "cert.pem")
        key = os.path.join(cls.pair.name, "key.pem")
        made = subprocess.run(
            [BINARY, "cert", "self-signed", "localhost", "127.0.0.1", "--cert", cls.cert,
             "--key", key],
            check=True, capture_output=True, text=True,
        )
        cls.fingerprint = made.stdout.strip()
        cls.options = ("--tls-listen", "127.0.0.1:0", "--tls-cert", cls.cert, "--tls-key", key)
        super().setUpClass()
        line = cls.server.next_line()
        host, port = line.removeprefix("listening tls ").rsplit(":", 1)
        cls.tls_address = (host, int(port))

    def test_pinned(self):
        with self.client("anna", self.tls_address, fingerprint=self.fingerprint) as anna:
            chat = anna.create_chat("pinned")
            sent = anna.send(chat, "x" * 16384)
            self.assertEqual(anna.request_chat_msg(chat)[0].id, sent.id)

    def test_a_file_and_messages_at_once(self):
        with self.client("anna", self.tls_address, ca_file=self.cert) as anna:
            chat = anna.create_chat("busy-tls")
            talker = self.client("boris")
            talker.join_chat(chat)
            said, data = self.collect(anna), random.Random(4).randbytes(3 << 20)

            def talk():
                for number in range(150):
                    talker.send(chat, f"{number} " + "x" * 15_000)

            thread = threading.Thread(target=talk)
            thread.start()
            file = anna.upload(chat, data)
            anna.send(chat, files=[file])
            thread.join()
            self.assertEqual(anna.download(file), data)
            self.pump(anna, lambda: len(said) == 150)

    def test_wss(self):
        host, port = self.tls_address
        url = f"wss://{host}:{port}/ws"
        with self.client("anna", url, fingerprint=self.fingerprint) as anna:
            chat = anna.create_chat("wss")
            anna.send(chat, files=[b"z" * 300_000])
            file, = anna.request_chat_page(chat)[0].files
            self.assertEqual(anna.download(file), b"z" * 300_000)

    def test_signed(self):
        with self.client("anna", self.tls_address, ca_file=self.cert) as anna:
            self.assertEqual(anna.get_user(anna.user_id).nickname, "anna")

    def test_unknown(self):
        wrong = "00" + self.fingerprint[2:] if self.fingerprint[:2] != "00" else "11" * 32
        for options in ({"fingerprint": wrong}, {"tls": True}):
            with self.assertRaises(ssl.SSLCertVerificationError):
                self.client(address=self.tls_address, **options)
        with self.assertRaises(Disconnected):
            self.client(address=self.server.address, fingerprint=self.fingerprint)
