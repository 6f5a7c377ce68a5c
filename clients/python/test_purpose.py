"""What purpose.py promises, against the real server.

    python3 -m unittest discover clients/python

The server is the binary that VESTNIK_BINARY names, or else target/debug/vestnik of this repository.
"""

import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE), str(ROOT / "scripts")]

import purpose  # noqa: E402
from purpose import Client, Declined, Disconnected, SessionEnded  # noqa: E402
from purpose_wire import PASSWORD, Server  # noqa: E402

BINARY = os.environ.get("VESTNIK_BINARY", str(ROOT / "target" / "debug" / "vestnik"))
NAMES = ["anna", "boris", "vera"]


class Gate:
    """A way to the server that can be cut: what a bad network is to a client."""

    def __init__(self, target):
        self.target, self.pairs, self.is_open = target, [], True
        self.over, self.threads = [], []
        self.swallow_answers = False
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        self._start(self._accept)

    def _start(self, work, *values):
        thread = threading.Thread(target=work, args=values, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            if not self.is_open:
                client.close()
                continue
            server = socket.create_connection(self.target)
            self.pairs.append((client, server))
            for source, sink in ((client, server), (server, client)):
                self._start(self._copy, source, sink, source is server)

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
        self.addCleanup(client._link.close)
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
        client.request(purpose.HEARTBEAT)
        while client.poll(0):
            pass

    def assertDeclined(self, code, call, *values):
        with self.assertRaises(Declined) as caught:
            call(*values)
        self.assertEqual(caught.exception.code, code)
        return caught.exception


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
        near, far = socket.socketpair()
        self.addCleanup(near.close)
        self.addCleanup(far.close)
        layer = object.__new__(purpose.WebSocket)
        layer.socket, layer.raw, layer.is_over = near, bytearray(), False
        stream = b"\x82\x02hi\x89\x01p\x02\x01a\x80\x01b\x82\x7e\x00\x80" + b"z" * 128 + b"\x88\x02\x03\xe8"
        got = b"".join(layer.unwrap(stream[at : at + 1]) for at in range(len(stream)))
        self.assertEqual(got, b"hiab" + b"z" * 128)
        self.assertTrue(layer.is_over)
        answers = far.recv(100)
        self.assertEqual((answers[0], answers[1]), (0x8A, 0x81))
        self.assertEqual(answers[6] ^ answers[2], ord("p"))
        self.assertEqual(answers[7], 0x88)
        for wrong in (b"\xc2\x00", b"\x81\x00", b"\x82\x80"):
            layer.raw, layer.is_over = bytearray(), False
            with self.assertRaises(purpose.ProtocolError):
                layer.unwrap(wrong)


class Calls(WithServer):
    """Every purpose, on both versions."""

    def test_api_0_1(self):
        with self.client("anna", version=(0, 1)) as anna, self.client("boris") as boris:
            hall = anna.get_chat_id("HALL")
            self.assertEqual(anna.server.server, "")
            self.assertEqual(anna.user_id, anna.get_user_id("Anna"))
            self.assertFalse(anna.chat_req_pass(hall))
            self.assertFalse(anna.join_chat(hall))
            said = self.collect(boris)
            sent = anna.send(hall, "привет")
            self.pump(boris, lambda: said)
            chat, message = said[0]
            self.assertEqual((chat, message.id, message.content), (hall, sent.id, "привет"))
            self.assertEqual((message.sender, message.created), (anna.user_id, sent.created))
            self.assertTrue(message.is_new)
            found = anna.request_chat_msg(hall, sent.created)
            self.assertEqual(found, [message])
            self.assertEqual(anna.request_chat_msg(hall, 0, sent.created - 1)[-1:], [])
            anna.mark_seen(hall, sent.created)
            self.assertDeclined("no-such-chat", anna.get_chat_id, "nowhere")
            self.assertDeclined("unknown-purpose", anna.get_my_chats)
            anna.logoff()
            self.assertDeclined("login-required", anna.get_user_id, "anna")

    def test_a_long_range_of_0_1(self):
        with self.client("anna") as anna:
            chat = anna.create_chat("long")
            sent = [anna.send(chat, "x" * 16384).id for _ in range(70)]
        with self.client("anna", version=(0, 1)) as anna:
            self.assertEqual([m.id for m in anna.request_chat_msg(chat)], sent)
            anna.watch(chat)
            said = self.collect(anna)
            self.pump(anna, lambda: len(said) >= 70)
            self.assertEqual([m.id for _, m in said], sent)

    def test_accounts_and_sessions(self):
        with self.client() as new:
            self.assertIn("vestnik", new.server.server)
            user = new.register_user("grigory", "a long password")
            self.assertDeclined("name-taken", new.register_user, "Grigory", "a long password")
            self.assertDeclined("bad-credentials", new.login, "grigory", "a wrong password")
            new.login("grigory", "a long password")
            self.assertEqual(new.user_id, user)
            found = new.get_user(user)
            self.assertEqual((found.nickname, found.is_online), ("grigory", True))
            with self.client() as other:
                other.login("grigory", "a long password")
                sessions = new.get_sessions()
                self.assertEqual([s.is_this for s in sessions].count(True), 1)
                self.assertTrue(all(s.is_attached and s.address == "127.0.0.1" for s in sessions))
                ended = self.collect(other, "deauth")
                new.change_password("a long password", "another password")
                with self.assertRaises(SessionEnded):
                    self.pump(other, lambda: False)
                self.assertEqual(ended, [()])
            with self.client() as third:
                third.login("grigory", "another password")
                mine = next(s.id for s in third.get_sessions() if s.is_this)
                new.end_session(mine)
                with self.assertRaises(SessionEnded):
                    self.pump(third, lambda: False)

    def test_chats(self):
        with self.client("anna") as anna, self.client("boris") as boris:
            chat = anna.create_chat("garden", "sesame")
            events = self.collect(anna, "member")
            self.assertTrue(boris.chat_req_pass(chat))
            self.assertDeclined("password-required", boris.join_chat, chat)
            self.assertDeclined("bad-password", boris.join_chat, chat, "wrong")
            self.assertTrue(boris.join_chat(chat, "sesame"))
            self.pump(anna, lambda: events)
            self.assertEqual(events[0], (chat, boris.user_id, 1, "boris"))
            infos = self.collect(boris, "chat")
            anna.rename_chat(chat, "orchard")
            anna.set_chat_title(chat, "Trees")
            anna.set_chat_password(chat)
            self.pump(boris, lambda: infos and infos[-1][0].title == "Trees"
                      and not infos[-1][0].has_password)
            info = boris.get_chat(chat)
            self.assertEqual((info.name, info.members, info.is_member), ("orchard", 2, True))
            self.assertFalse(info.is_direct or info.is_admin)
            self.assertIn(chat, [found.id for found in boris.find_chats("ORCH")])
            self.assertIn(chat, [found.id for found in boris.get_my_chats()])
            anna.set_chat_admin(chat, boris.user_id)
            members = {m.user: m for m in boris.get_members(chat)}
            self.assertTrue(members[boris.user_id].is_admin and members[anna.user_id].is_online)
            anna.set_chat_admin(chat, boris.user_id, False)
            gone = self.collect(boris, "chat_gone")
            anna.set_chat_ban(chat, boris.user_id)
            self.pump(boris, lambda: gone)
            self.assertTrue(anna.get_members(chat)[-1].is_banned)
            self.assertDeclined("forbidden", boris.join_chat, chat)
            anna.set_chat_ban(chat, boris.user_id, False)
            boris.join_chat(chat)
            boris.leave_chat(chat)
            self.assertDeclined("not-member", boris.leave_chat, chat)
            anna.delete_chat(chat)
            self.assertDeclined("no-such-chat", anna.get_chat, chat)
            direct = anna.start_chat(boris.user_id)
            self.assertEqual(direct, boris.start_chat(anna.user_id))
            self.assertTrue(anna.get_chat(direct).is_direct)
            self.assertEqual(anna.get_chat(direct).title, "boris")

    def test_messages(self):
        with self.client("anna") as anna, self.client("boris") as boris:
            chat = anna.create_chat("letters")
            boris.join_chat(chat)
            self.settle(boris)
            said, typed = self.collect(boris), self.collect(boris, "typing")
            seen = self.collect(anna, "seen")
            first = anna.send(chat, "one")
            self.assertEqual(anna.send(chat, "again", nonce=7), anna.send(chat, "again", nonce=7))
            edited = anna.edit_msg(chat, first.id, "two")
            deleted = anna.delete_msg(chat, first.id)
            anna.typing(chat)
            self.pump(boris, lambda: typed and len(said) == 4)
            self.assertEqual(typed, [(chat, anna.user_id)])
            messages = [message for _, message in said]
            self.assertEqual([m.content for m in messages], ["one", "again", "two", ""])
            self.assertTrue(messages[2].is_edited and messages[3].is_deleted)
            self.assertEqual([messages[2].updated, messages[3].updated], [edited, deleted])
            boris.mark_seen(chat, deleted)
            self.pump(anna, lambda: seen)
            self.assertEqual(seen, [(chat, boris.user_id, deleted)])
            page = boris.request_chat_page(chat, limit=1)
            self.assertEqual([m.content for m in page], ["again"])
            self.assertEqual(boris.request_chat_page(chat, page[0].id)[0].id, first.id)
            updates = boris.request_updates(first.created)
            self.assertEqual([(c, m.content) for c, m in updates if c == chat],
                             [(chat, "again"), (chat, "")])
            self.assertDeclined("bad-query", boris.search_msg, "")
            self.assertDeclined("empty-message", anna.send, chat, "")

    def test_presence(self):
        with self.client("anna") as anna:
            seen = self.collect(anna, "presence")
            with self.client("vera") as vera:
                self.pump(anna, lambda: (vera.user_id, True) in seen)
            self.pump(anna, lambda: (vera.user_id, False) in seen)

    def test_a_call_from_within_a_callback(self):
        with self.client("anna") as anna, self.client("boris") as boris:
            chat = anna.create_chat("echoes")
            boris.join_chat(chat)
            heard = self.collect(anna)

            @boris.on("message")
            def echo(chat, message):
                boris.send(chat, f"you said {message.content}")

            for number in range(20):
                anna.send(chat, str(number))
            answered = lambda: len(boris.request_chat_page(chat)) == 40  # noqa: E731
            self.pump(boris, answered)
            self.pump(anna, lambda: len(heard) == 20)
            self.assertEqual(heard[19][1].content, "you said 19")


class Breaks(WithServer):
    """What a broken connection costs: nothing."""

    def test_a_message_is_sent_once(self):
        gate = self.gate()
        with self.client("anna", gate.address) as anna:
            chat = anna.create_chat("once")
            for number in range(5):
                # The server takes the message, and its answer is lost on the way.
                gate.swallow_answers = True
                threading.Timer(0.3, gate.cut).start()
                anna.send(chat, f"message {number}")
            got = self.collect(anna)
            self.settle(anna)
            self.assertEqual(got, [], "one's own is no news")
            kept = [message.content for message in anna.request_chat_msg(chat)]
        self.assertEqual(kept, [f"message {number}" for number in range(5)])

    def test_nothing_is_missed_or_sent_twice(self):
        gate = self.gate()
        with self.client("anna") as anna, self.client("boris", gate.address) as boris:
            chats = [anna.create_chat(f"room{number}") for number in range(3)]
            for chat in chats:
                boris.join_chat(chat)
            got, sent = self.collect(boris), []
            back = self.collect(boris, "reconnect")
            for number in range(120):
                sent.append((chats[number % 3], anna.send(chats[number % 3], str(number)).id))
                if number % 20 == 10:
                    gate.cut()
                if number % 7 == 0:
                    self.poll_over_breaks(boris)
            while len(got) < 120:
                self.poll_over_breaks(boris)
            self.assertGreaterEqual(len(back), 1)
            for chat in chats:
                self.assertEqual([m.id for c, m in got if c == chat],
                                 [message for c, message in sent if c == chat])

    def poll_over_breaks(self, client):
        try:
            client.poll(0.05)
        except Disconnected:
            client.reconnect()

    def test_a_full_queue_is_read_from_the_server_again(self):
        with self.client("anna") as anna, self.client("boris", queue_bytes=2000) as boris:
            chat = anna.create_chat("flood")
            boris.join_chat(chat)
            got = self.collect(boris)
            sent = []
            for number in range(200):
                sent.append(anna.send(chat, f"{number} " + "x" * 300).id)
                if number % 50 == 0:
                    boris.get_user(boris.user_id)
            self.assertLess(boris._queued_bytes, 4000)
            self.pump(boris, lambda: len(got) == 200)
            self.assertEqual([m.id for _, m in got], sent)

    def test_a_state_file_belongs_to_one_user(self):
        with tempfile.TemporaryDirectory() as folder:
            state = os.path.join(folder, "state.json")
            first = Client(self.server.address, state_file=state)
            first.start("anna", PASSWORD)
            first.close()
            second = Client(self.server.address, state_file=state)
            with self.assertRaisesRegex(ValueError, "session of anna, not of boris"):
                second.start("boris", PASSWORD)
            second.start("ANNA", PASSWORD)
            self.assertEqual(second.get_user(second.user_id).nickname, "anna")
            second.close()

    def test_a_restart_goes_on_where_it_was(self):
        state = os.path.join(self.folder.name, "boris.json")
        with self.client("anna") as anna:
            chat = anna.create_chat("restart")
            with self.client(state_file=state) as boris:
                boris.start("boris", PASSWORD)
                boris.join_chat(chat)
                got = self.collect(boris)
                anna.send(chat, "while here")
                self.pump(boris, lambda: got)
            self.assertEqual(os.stat(state).st_mode & 0o777, 0o600)
            anna.send(chat, "while away")
            with self.client(state_file=state) as boris:
                boris.start("boris", "not needed, the session is restored")
                got = self.collect(boris)
                self.pump(boris, lambda: got)
                self.assertEqual([m.content for c, m in got if c == chat], ["while away"])
                self.settle(boris)
                self.assertEqual(len(got), 1)
                boris.logoff()
            with open(state, encoding="utf-8") as file:
                self.assertIsNone(json.load(file)["session"])

    def test_a_session_taken_over_is_not_fought_for(self):
        with self.client("anna") as first:
            with self.client() as second:
                second.restore(first.state)
                with self.assertRaises(SessionEnded):
                    first.run()
                self.assertEqual(second.get_user(second.user_id).nickname, "anna")

    def test_suspended_and_resumed(self):
        with self.client("anna") as anna, self.client("boris") as boris:
            chat = anna.create_chat("quiet")
            boris.join_chat(chat)
            got = self.collect(boris)
            anna.send(chat, "one")
            self.pump(boris, lambda: got)
            boris.suspend()
            self.assertDeclined("session-suspended", boris.get_user, boris.user_id)
            anna.send(chat, "two")
            self.settle(boris)
            self.assertEqual(len(got), 1)
            boris.resume()
            self.pump(boris, lambda: len(got) == 2)

    def test_what_is_not_safe_to_repeat_is_not_repeated(self):
        gate = self.gate()
        with self.client("anna", gate.address) as anna:
            gate.swallow_answers = True
            threading.Timer(0.3, gate.cut).start()
            with self.assertRaises(Disconnected):
                anna.create_chat("unsure")
            anna.reconnect()
            self.assertDeclined("name-taken", anna.create_chat, "unsure")

    def test_retries_end(self):
        gate = self.gate()
        with self.client("anna", gate.address, retry_seconds=0.5) as anna:
            gate.is_open = False
            gate.cut()
            with self.assertRaises(Disconnected):
                anna.get_my_chats()


class Silence(WithServer):
    """Who says nothing is asked, on both sides."""

    options = ("--idle-timeout", "1", "--heartbeat-timeout", "1")

    def test_the_server_is_answered(self):
        with self.client("anna") as anna:
            back = self.collect(anna, "reconnect")
            deadline = time.monotonic() + 4
            while time.monotonic() < deadline:
                anna.poll(0.2)
            self.assertEqual(back, [])
            self.assertEqual(anna.get_user(anna.user_id).nickname, "anna")

    def test_a_dead_server_is_noticed(self):
        gate = self.gate()
        with self.client("anna", gate.address) as anna:
            while anna.poll(0):
                pass
            gate.swallow_answers = True
            anna._link.last_byte -= purpose.SILENCE_SECONDS
            self.assertFalse(anna.poll(0.1))
            anna._ping = (anna._ping[0], time.monotonic() + 0.2)
            with self.assertRaises(Disconnected):
                anna.poll(5)


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
        line = cls.server._first_line()
        host, port = line.removeprefix("listening tls ").rsplit(":", 1)
        cls.tls_address = (host, int(port))

    def test_pinned(self):
        with self.client("anna", self.tls_address, fingerprint=self.fingerprint) as anna:
            chat = anna.create_chat("pinned")
            sent = anna.send(chat, "x" * 16384)
            self.assertEqual(anna.request_chat_msg(chat)[0].id, sent.id)

    def test_signed(self):
        with self.client("anna", self.tls_address, ca_file=self.cert) as anna:
            self.assertEqual(anna.get_user(anna.user_id).nickname, "anna")

    def test_unknown(self):
        wrong = "00" + self.fingerprint[2:] if self.fingerprint[:2] != "00" else "11" * 32
        for options in ({"fingerprint": wrong}, {"tls": True}):
            with self.assertRaises(purpose.ssl.SSLCertVerificationError):
                self.client(address=self.tls_address, **options)
        with self.assertRaises(Disconnected):
            self.client(address=self.server.address, fingerprint=self.fingerprint)


class Bot(WithServer):
    """The example of ten lines."""

    def test_it_echoes(self):
        host, port = self.server.address
        command = [sys.executable, str(HERE / "echo_bot.py"), f"{host}:{port}", "boris", PASSWORD,
                   "hall"]
        with self.client("anna") as anna:
            heard, present = self.collect(anna), self.collect(anna, "presence")
            bot = subprocess.Popen(command)
            self.addCleanup(bot.wait)
            self.addCleanup(bot.kill)
            self.pump(anna, lambda: present)
            hall = anna.get_chat_id("hall")
            anna.send(hall, "hello, bot")
            self.pump(anna, lambda: heard)
            self.assertEqual(heard[0][1].content, "hello, bot")


class Pieces(unittest.TestCase):
    """What needs no server."""

    def test_addresses(self):
        self.assertEqual(purpose._split_address("[::1]:7420"), ("::1", 7420))
        with self.assertRaises(ValueError):
            Client("localhost")

    def test_text_holds_no_nul(self):
        with self.assertRaises(ValueError):
            purpose.text("a\0b")

    def test_a_body_that_ends_early(self):
        for body in (b"\1\2", b"\1\0\0\0abc", b"\1\0\0\0\xff\0"):
            with self.assertRaises(purpose.ProtocolError):
                reader = purpose.Reader(body)
                reader.u32(), reader.str()

    def test_the_number_of_a_decline(self):
        self.assertEqual(Declined("rate-limited: try again in 7 seconds").number, 7)
        self.assertIsNone(Declined("forbidden: no").number)


if __name__ == "__main__":
    unittest.main()
