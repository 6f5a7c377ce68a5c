"""The purposes of API 0.1 and 1.0."""

from purpose import API_0_1, SessionEnded

from .support import WithServer


class Calls(WithServer):
    """Every purpose, on both versions."""

    def test_api_0_1(self):
        with self.client("anna", version=API_0_1) as anna, self.client("boris") as boris:
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
        with self.client("anna", version=API_0_1) as anna:
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

    def test_a_body_that_is_too_long(self):
        with self.client("anna") as anna:
            chat, back = anna.create_chat("bulky"), self.collect(anna, "reconnect")
            for size in (70_000, 10 << 20):
                self.assertDeclined("too-large", anna.send, chat, "x" * size)
            anna.send(chat, "short")
            self.settle(anna)
            self.assertEqual(back, [])

    def test_chat_events_of_what_oneself_has_done(self):
        with self.client("anna") as anna, self.client("boris") as boris:
            infos = self.collect(boris, "chat")
            self.settle(boris)
            infos.clear()
            joined = anna.create_chat("by-anna")
            created = boris.create_chat("by-boris")
            boris.join_chat(joined)
            self.settle(boris)
            self.assertEqual(sorted(info.id for info, in infos), sorted([joined, created]))
            infos.clear()
            boris.rename_chat(created, "by-boris-2")
            boris.set_chat_title(created, "A title")
            boris.set_chat_password(created, "sesame")
            self.settle(boris)
            (info,), = infos
            self.assertEqual((info.name, info.title, info.has_password),
                             ("by-boris-2", "A title", True))
            direct = boris.start_chat(anna.user_id)
            self.settle(boris)
            self.assertEqual((infos[-1][0].id, infos[-1][0].title), (direct, "anna"))
            boris.leave_chat(joined)
            boris.join_chat(joined)
            self.settle(boris)
            self.assertEqual(infos[-1][0].id, joined)

    def test_chat_events_of_what_was_missed(self):
        gate = self.gate()
        with self.client("anna") as anna, self.client("boris", gate.address) as boris:
            chats = [anna.create_chat(f"missed{number}") for number in range(2)]
            infos = self.collect(boris, "chat")
            for chat in chats:
                boris.join_chat(chat)
            self.settle(boris)
            gate.cut()
            anna.set_chat_title(chats[1], "changed while away")
            boris.reconnect()
            infos.clear()
            self.settle(boris)
            self.assertEqual([(info.id, info.title) for info, in infos],
                             [(chats[1], "changed while away")])

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
