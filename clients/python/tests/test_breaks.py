"""What a broken connection, a restart and silence cost."""

import json
import os
import tempfile
import threading
import time

from purpose import Client, Disconnected, SessionEnded, session

from .support import PASSWORD, WithServer


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

    def test_what_comes_while_a_session_is_attached_hides_nothing(self):
        with self.client("anna") as anna, self.client("boris") as boris:
            chat = anna.create_chat("gap")
            boris.join_chat(chat)
            got = self.collect(boris)
            anna.send(chat, "before")
            while not got:
                boris.poll(0.05)

            def attach(again, count):
                """Another message comes after the session is attached, before catch-up begins."""
                begin = boris._begin

                def slowly():
                    anna.send(chat, "live")
                    time.sleep(0.2)
                    boris._begin = begin
                    begin()

                boris._link.close()
                anna.send(chat, "missed")
                boris._begin = slowly
                again()
                self.pump(boris, lambda: len(got) == count)

            def restore():
                boris._connect()
                boris.restore(boris.state)

            attach(boris.reconnect, 3)
            attach(restore, 5)
            self.assertEqual([message.content for _, message in got],
                             ["before", "missed", "live", "missed", "live"])

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

    def test_what_was_delivered_is_saved_without_further_events(self):
        state = os.path.join(self.folder.name, "idle.json")
        with self.client("anna") as anna, self.client(state_file=state) as boris:
            boris.start("boris", PASSWORD)
            chat = anna.create_chat("idle")
            boris.join_chat(chat)
            got, sent = self.collect(boris), [anna.send(chat, str(number)) for number in range(9)]
            self.pump(boris, lambda: len(got) == 9)
            boris.poll(1.5)
            with open(state, encoding="utf-8") as file:
                self.assertEqual(json.load(file)["cursors"][str(chat)], sent[-1].created)

    def test_a_closed_client_stays_closed(self):
        with self.client("anna") as anna:
            hall = anna.get_chat_id("hall")
        with self.assertRaises(Disconnected):
            anna.send(hall, "after the end")
        anna.reconnect()
        self.assertTrue(anna.send(hall, "open again").id)
        anna.close()

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

    def test_a_callback_that_succeeded_is_not_called_again(self):
        with self.client("anna") as anna, self.client("boris") as boris:
            chat, calls = anna.create_chat("callbacks"), []
            boris.join_chat(chat)
            boris.on("message")(lambda _chat, message: calls.append("first"))

            @boris.on("message")
            def fail_once(_chat, _message):
                calls.append("second")
                if calls.count("second") == 1:
                    raise Disconnected("just now")

            boris.on("message")(lambda _chat, message: calls.append("third"))
            anna.send(chat, "one")
            with self.assertRaises(Disconnected):
                self.pump(boris, lambda: False)
            self.pump(boris, lambda: "third" in calls)
            anna.send(chat, "two")
            self.pump(boris, lambda: calls.count("third") == 2)
            self.assertEqual(calls, ["first", "second", "second", "third",
                                     "first", "second", "third"])

    def test_a_long_history_is_read_twice_at_most(self):
        with self.client("anna") as anna, self.client("boris", queue_bytes=200_000) as boris:
            chats = [anna.create_chat(f"history{number}") for number in range(3)]
            sent = [(chat, anna.send(chat, f"{number} " + "x" * 16_000).id)
                    for chat in chats for number in range(100)]
            for chat in chats:
                boris.join_chat(chat)
                boris.watch(chat)
            got, received, reader = self.collect(boris), 0, boris._answered

            def count(purpose, task, body):
                nonlocal received
                received += len(body)
                reader(purpose, task, body)

            boris._answered = count
            self.pump(boris, lambda: len(got) == 300)
            self.assertEqual(sorted((chat, message.id) for chat, message in got), sorted(sent))
            self.assertLess(received, 2.2 * 300 * 16_000)

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
            anna._link.last_byte -= session.SILENCE_SECONDS
            self.assertFalse(anna.poll(0.1))
            anna._ping = (anna._ping[0], time.monotonic() + 0.2)
            with self.assertRaises(Disconnected):
                anna.poll(5)
