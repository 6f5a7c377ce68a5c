"""Servers that break the rules: nothing that they send hangs the client or fills its memory."""

import itertools
import socket
import struct
import threading
import time
import unittest
from unittest import mock

from purpose import Client, Declined, Disconnected, ProtocolError, events, session, wire

from .fake import INFO, FakeServer, Listener, message


class WithFake(unittest.TestCase):
    """A client of a server that answers as the test says."""

    def fake(self, answers=None, **options):
        fake = FakeServer(answers, **options)
        self.addCleanup(fake.close)
        return fake

    def client(self, fake, login=True, **options):
        client = Client(fake.address, **{"timeout": 5, "retry_seconds": 0, **options})
        self.addCleanup(lambda: client._link.close())
        if login:
            client.login("anna", "correct horse")
        return client


class Trickle(Listener):
    """Answers the handshake of a WebSocket with a byte now and then."""

    def __init__(self):
        super().__init__()
        self.start(self.accept_all)

    def accepted(self, plain):
        self.start(self._send, plain)

    @staticmethod
    def _send(plain):
        with plain:
            try:
                for _ in range(200):
                    plain.sendall(b"x")
                    time.sleep(0.05)
            except OSError:
                pass  # the client is gone


class Handshakes(unittest.TestCase):
    """Handshakes that do not end."""

    def test_bytes_do_not_extend_the_time_for_a_handshake(self):
        server = Trickle()
        self.addCleanup(server.listener.close)
        begun = time.monotonic()
        with self.assertRaisesRegex(Disconnected, "within 0.5 s|timed out"):
            port = server.listener.getsockname()[1]
            Client(f"ws://127.0.0.1:{port}/ws", timeout=0.5, retry_seconds=0)
        self.assertLess(time.monotonic() - begun, 3)


class Answers(WithFake):
    """Answers that never end, or are none."""

    def test_notifications_do_not_extend_the_time_for_an_answer(self):
        def be_busy(peer, _task, _body):
            while True:
                peer.send(wire.TYPING_NOTIFY, 1, wire.U32.pack(1) + wire.U32.pack(8))
                time.sleep(0.02)

        client = self.client(self.fake({wire.GET_USER: be_busy}), timeout=0.5)
        begun = time.monotonic()
        with self.assertRaisesRegex(Disconnected, "does not answer"):
            client.get_user(7)
        self.assertLess(time.monotonic() - begun, 3)

    def test_pings_do_not_extend_the_time_for_an_answer(self):
        def be_busy(peer, _task, _body):
            while True:
                peer.socket.sendall(b"\x89\x7d" + b"p" * 125)

        client = self.client(self.fake({wire.GET_USER: be_busy}, is_web=True), timeout=0.5)
        begun = time.monotonic()
        with self.assertRaisesRegex(Disconnected, "does not answer"):
            client.get_user(7)
        self.assertLess(time.monotonic() - begun, 3)
        self.assertLess(len(client._link._begun), 200)

    def test_parts_extend_the_time_for_an_answer(self):
        def answer_slowly(peer, task, _body):
            for number in range(8):
                time.sleep(0.2)
                peer.send(wire.PART, task, message(number + 1))
            peer.accept(task)

        client = self.client(self.fake({wire.REQUEST_CHAT_MSG: answer_slowly}), timeout=0.8)
        self.assertEqual(len(client.request_chat_msg(1)), 8)

    def test_a_part_of_an_answer_without_parts(self):
        fake = self.fake({wire.HELLO: lambda peer, task, _: peer.send(wire.PART, task, b"x")})
        with self.assertRaisesRegex(ProtocolError, "PART"):
            self.client(fake)

    def test_an_answer_without_end(self):
        def answer_for_ever(peer, task, _body):
            for number in itertools.count(1):
                peer.send(wire.PART, task, message(number, "x" * 50_000))

        fake = self.fake({wire.REQUEST_UPDATES: answer_for_ever})
        client = self.client(fake, answer_bytes=1 << 20)
        with self.assertRaisesRegex(ProtocolError, "answer_bytes"):
            client.request_updates(0)
        with self.assertRaises(Disconnected):
            client.get_user(7)

    def test_events_with_long_texts_are_bounded(self):
        info = INFO[4:-7] + wire.text("n" * 100_000) + wire.text("") + b"\0"

        def notify(peer, task, _body):
            for chat in range(2, 100):
                peer.send(wire.CHAT_NOTIFY, 1, wire.U32.pack(chat) + info)
                peer.send(wire.MEMBER_NOTIFY, 1, wire.U32.pack(chat) + wire.U32.pack(8) + b"\1"
                          + wire.text("n" * 100_000))
            peer.accept(task, wire.U32.pack(8) + b"\0" + wire.TIME.pack(5) + wire.text("boris"))

        client = self.client(self.fake({wire.GET_USER: notify}), queue_bytes=1 << 20)
        client.get_user(8)
        kept = sum(len(field) for _, values in client._queue
                   for field in (values[0] if isinstance(values[0], tuple) else values)
                   if isinstance(field, str))
        self.assertLess(kept, 2 << 20)

    def test_a_session_that_is_not_listed(self):
        fake = self.fake({wire.GET_SESSIONS: lambda peer, task, _: peer.accept(task)})
        with self.assertRaisesRegex(ProtocolError, "GET_SESSIONS"):
            self.client(fake)

    def test_ranges_that_fit_nowhere(self):
        for words in ("too-large: no", "too-large: 0", f"too-large: {1 << 63}"):
            reason = lambda peer, task, _, words=words: peer.decline(task, words)  # noqa: E731
            client = self.client(self.fake({wire.REQUEST_CHAT_MSG: reason}), from_start=True)
            with self.assertRaises(ProtocolError, msg=words):
                client.request_chat_msg(1, 5)
            with self.assertRaises(ProtocolError, msg=words):
                for _ in range(100):
                    client.poll(0)


class Reasons(WithFake):
    """Numbers in the words of DECLINED."""

    def test_numbers(self):
        for words, number in (("in 5 seconds", 5), ("in ² seconds", None), ("٣", None),
                              ("none", None), ("9" * 19, int("9" * 19)), ("9" * 5000, None)):
            self.assertEqual(Declined(f"rate-limited: {words}").number, number)

    def test_no_pause_is_endless(self):
        answers = iter(["rate-limited: in 9999999999999 seconds", None])

        def restore(peer, task, _body):
            reason = next(answers)
            peer.decline(task, reason) if reason else peer.accept(task, struct.pack("<IB", 7, 0))

        client = self.client(self.fake({wire.RESTORE_SESSION: restore}), retry_seconds=None)
        with mock.patch.object(session.time, "sleep") as sleep:
            client.reconnect()
        sleep.assert_called_once_with(session.LIMITED_SECONDS_MAX)


class Breaks(WithFake):
    """Requests that break every connection."""

    def test_one_request_is_not_repeated_for_ever(self):
        def close_it(peer, _task, _body):
            peer.socket.shutdown(socket.SHUT_RDWR)

        asked = {wire.GET_USER: close_it, wire.PUT_FILE: close_it, wire.GET_FILE: close_it,
                 wire.BEGIN_FILE: lambda peer, task, _: peer.accept(task, wire.U64.pack(5))}
        fake = self.fake(asked)
        client = self.client(fake, retry_seconds=None)
        file = client.begin_file(1, 3, "name")
        with mock.patch.object(session.time, "sleep"):
            for call in (lambda: client.get_user(7), lambda: client.upload(1, b"abc"),
                         lambda: client.continue_upload(file, b"abc"),
                         lambda: client.download(file)):
                with self.assertRaisesRegex(ProtocolError, "connections broke"):
                    call()
                client.reconnect()
        self.assertEqual(fake.requests.count(wire.GET_USER), session.BREAKS_MAX)

    def test_a_range_that_breaks_is_read_ever_more_rarely(self):
        def close_it(peer, _task, _body):
            peer.socket.shutdown(socket.SHUT_RDWR)

        client = self.client(self.fake({wire.REQUEST_CHAT_MSG: close_it}), retry_seconds=None)
        pauses = []

        def sleep(seconds):
            pauses.append(seconds)
            if len(pauses) == 10:
                client.stop()

        with mock.patch.object(session.time, "sleep", sleep):
            client.run()
        self.assertGreater(pauses[-1], 10)


    def test_connections_that_last_are_mended_at_once(self):
        def close_soon(peer, task, _body):
            peer.accept(task, INFO)
            threading.Event().wait(0.2)
            peer.socket.shutdown(socket.SHUT_RDWR)

        fake = self.fake({wire.GET_MY_CHATS: close_soon})
        client, count = self.client(fake, retry_seconds=None), 0

        @client.on("reconnect")
        def stop_late():
            nonlocal count
            count += 1
            if count == 8:
                client.stop()

        with mock.patch.object(events, "PAUSE_SECONDS_MAX", 0.05), \
                mock.patch.object(session.time, "sleep") as sleep:
            client.run()
        sleep.assert_not_called()


class Reading(WithFake):
    """A server that cannot be read for a while."""

    def test_a_range_that_is_declined_at_first(self):
        for reason, code in (("storage-failed: try again", None), ("odd: no", "odd")):
            reasons = [reason]

            def answer(peer, task, _body, reasons=reasons):
                if reasons:
                    peer.decline(task, reasons.pop())
                else:
                    peer.accept(task, message(5, "found"))

            fake = self.fake({wire.REQUEST_CHAT_MSG: answer})
            client, got = self.client(fake, from_start=True, retry_seconds=None), []

            @client.on("message")
            def stop(_chat, found, got=got, client=client):
                got.append(found.content)
                client.stop()

            if code:
                with self.assertRaises(Declined):
                    client.run()
            client.run()
            self.assertEqual(got, ["found"])


class HalfSent(WithFake):
    """What becomes due while a frame is being sent."""

    def test_a_pong_is_not_put_into_a_frame(self):
        stop = threading.Event()
        self.addCleanup(stop.set)

        def ping(peer):
            while not stop.is_set():
                peer.socket.sendall(b"\x89\x05ping!")
                time.sleep(0.001)

        def begin(peer, task, _body):
            peer.accept(task, wire.U64.pack(5))
            fake.start(ping, peer)

        def put(peer, task, body):
            _, offset = struct.unpack_from("<QQ", body)
            peer.accept(task, wire.U64.pack(offset + len(body) - 16))

        fake = self.fake({wire.BEGIN_FILE: begin, wire.PUT_FILE: put}, is_web=True,
                         receive_bytes=4096)
        client = self.client(fake)
        client._link.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        size = 2 << 20
        self.assertEqual(client.upload(1, b"z" * size, name="a.bin").size, size)
        stop.set()
        self.assertEqual(fake.errors, [])
