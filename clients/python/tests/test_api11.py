"""The purposes of API 1.1 but for files: users, invites, closed chats, reactions, replies, pushes."""

import base64
import collections
import functools
import os
import random
import secrets
import subprocess
import threading

from purpose import (
    API_0_1, API_1_0, API_1_1, NOTIFY_EVERYTHING, NOTIFY_MENTIONS, NOTIFY_NOTHING, REGISTRATION_INVITE,
    ChatCopy, Disconnected, SessionEnded, invite_code,
)

from .support import BINARY, PASSWORD, WithServer


class Versions(WithServer):
    """What an older version sees of all this."""

    def test_what_hello_says(self):
        with self.client() as new, self.client(version=API_1_0) as old:
            self.assertEqual(new.server.version, API_1_1)
            self.assertEqual(new.server.max_file, 25 << 20)
            self.assertGreater(new.server.registration, REGISTRATION_INVITE)
            self.assertEqual((old.server.version, old.server.max_file), (API_1_0, 0))

    def test_a_client_of_1_0(self):
        with self.client("anna") as anna, self.client("boris", version=API_1_0) as boris:
            chat = anna.create_chat("older")
            boris.join_chat(chat)
            said, reacted = self.collect(boris), self.collect(boris, "reaction")
            sent = anna.send(chat, "look", files=[b"%PDF"])
            anna.react(chat, sent.id, "👍")
            anna.send(chat, "end", reply_to=sent)
            self.pump(boris, lambda: len(said) == 2)
            self.assertEqual(said[0][1].content, "look\n[file, 4 bytes]")
            self.assertEqual((said[0][1].files, said[1][1].reply_to, reacted), ((), 0, []))
            self.assertTrue(boris.get_chat(chat).is_member)
            self.assertDeclined("unknown-purpose", boris.react, chat, sent.id, "👍")
            with self.assertRaises(ValueError):
                boris.send(chat, "no", reply_to=sent)


class Users(WithServer):
    """Operators, and finding people."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.server.admin("user", "set", "anna", "--operator", "on")

    def test_finding_users(self):
        with self.client("boris") as boris:
            self.assertFalse(boris.is_operator)
            self.assertEqual([user.nickname for user in boris.find_users("AN")], ["anna"])
            everyone = boris.find_users()
            self.assertEqual([user.nickname for user in everyone][:2], ["anna", "boris"])
            self.assertTrue(everyone[0].is_operator and everyone[1].is_online)
            self.assertEqual(boris.find_users("", 1), everyone[:1])
            self.assertTrue(boris.get_user(everyone[0].id).is_operator)

    def test_a_new_password(self):
        with self.client("anna") as anna, self.client() as new:
            self.assertTrue(anna.is_operator)
            user = new.register_user("forgetful", "a long password")
            code, expires = anna.reset_password(user)
            self.assertGreater(expires, anna.get_sessions()[0].created)
            self.assertDeclined("bad-code", new.set_password, "forgetful", "wrong", "another one")
            self.assertEqual(new.set_password("Forgetful", code, "another one"), user)
            self.assertDeclined("bad-code", new.set_password, "forgetful", code, "a third one")
            new.login("forgetful", "another one")
            self.assertDeclined("forbidden", new.reset_password, anna.user_id)

    def test_disabling(self):
        with self.client("anna") as anna, self.client() as new:
            user = new.register_user("leaving", "a long password")
            new.login("leaving", "a long password")
            anna.set_user_disabled(user)
            with self.assertRaises(SessionEnded):
                self.pump(new, lambda: False)
            self.assertTrue(anna.find_users("leaving")[0].is_disabled)
            with self.client() as again:
                self.assertDeclined("bad-credentials", again.login, "leaving", "a long password")
                anna.set_user_disabled(user, False)
                again.login("leaving", "a long password")
            self.assertDeclined("forbidden", anna.set_user_disabled, anna.user_id)


class Chats(WithServer):
    """Adding members, closed chats, what one is notified of."""

    def test_adding_and_closing(self):
        with self.client("anna") as anna, self.client("boris") as boris:
            chat = anna.create_chat("closed")
            anna.set_chat_closed(chat)
            self.assertTrue(anna.get_chat(chat).is_closed)
            self.assertDeclined("no-such-chat", boris.get_chat_id, "closed")
            infos = self.collect(boris, "chat")
            self.assertTrue(anna.add_member(chat, boris.user_id))
            self.assertFalse(anna.add_member(chat, boris.user_id))
            self.pump(boris, lambda: infos and infos[-1][0].id == chat)
            self.assertTrue(infos[-1][0].is_closed and infos[-1][0].is_member)
            self.assertDeclined("forbidden", boris.add_member, chat, anna.user_id)
            self.assertDeclined("forbidden", boris.set_chat_closed, chat, False)
            anna.set_chat_closed(chat, False)
            self.pump(boris, lambda: not infos[-1][0].is_closed)

    def test_notify(self):
        with self.client("anna") as anna, self.client("anna") as other:
            chat = anna.create_chat("quiet")
            self.assertEqual(anna.get_chat(chat).notify, NOTIFY_EVERYTHING)
            infos = self.collect(other, "chat")
            for level in (NOTIFY_MENTIONS, NOTIFY_NOTHING):
                anna.set_chat_notify(chat, level)
                self.pump(other, lambda: infos and infos[-1][0].notify == level)
            self.assertDeclined("malformed", anna.set_chat_notify, chat, 3)

    def test_pages_of_newer(self):
        with self.client("anna") as anna:
            chat = anna.create_chat("pages")
            sent = [anna.send(chat, str(number)) for number in range(5)]
            newer = anna.request_chat_page(chat, sent[1], 2, newer=True)
            self.assertEqual([message.content for message in newer], ["2", "3"])


class Invites(WithServer):
    """Making, listing, using and ending them."""

    options = ("--registration", "invite", "--invites-by", "admins")

    def test_into_a_chat(self):
        with self.client("anna") as anna, self.client("boris") as boris:
            chat = anna.create_chat("by-invite", "a password")
            code = anna.create_invite(chat, uses=2, days=3)
            invite, = anna.get_invites(chat)
            self.assertEqual((invite.uses_left, invite.creator), (2, anna.user_id))
            self.assertEqual((invite.registers, invite.chat), (False, chat))
            self.assertGreater(invite.expires, invite.created)
            self.assertEqual(boris.use_invite(f"https://chat.example.org/#invite={code}"), chat)
            self.assertEqual(boris.use_invite(code), chat)
            self.assertEqual(anna.get_invites(chat)[0].uses_left, 1)
            said = self.collect(boris)
            anna.send(chat, "welcome")
            self.pump(boris, lambda: said)
            self.assertDeclined("forbidden", boris.get_invites, chat)
            anna.end_invite(invite.hint)
            self.assertEqual(anna.get_invites(chat), [])
            with self.client("vera") as vera:
                self.assertDeclined("bad-invite", vera.use_invite, code)
            self.assertDeclined("bad-invite", anna.end_invite, invite.hint)

    def test_used_up_by_a_lost_answer(self):
        gate = self.gate()
        with self.client("anna") as anna, self.client("boris", gate.address) as boris:
            chat = anna.create_chat("once-only")
            code = anna.create_invite(chat, uses=1)
            gate.swallow_answers = True
            threading.Timer(0.3, gate.cut).start()
            self.assertEqual(boris.use_invite(code), chat)
            self.assertDeclined("bad-invite", boris.use_invite, code)

    def test_registering(self):
        with self.client("anna") as anna, self.client() as new:
            self.assertEqual(new.server.registration, REGISTRATION_INVITE)
            self.assertDeclined("bad-invite", new.register_user, "dmitri", "a long password")
            chat = anna.create_chat("newcomers")
            code = anna.create_invite(chat, registers=True)
            user = new.register_user("dmitri", "a long password", code)
            new.login("dmitri", "a long password")
            self.assertEqual(new.user_id, user)
            self.assertEqual([info.id for info in new.get_my_chats()], [chat])
            self.assertEqual(anna.get_invites(chat), [])
            with self.client() as late:
                self.assertDeclined("bad-invite", late.register_user, "ivan", "a long word", code)

    def test_what_is_none(self):
        with self.client("anna") as anna:
            self.assertDeclined("malformed", anna.create_invite)
            self.assertDeclined("no-such-chat", anna.create_invite, 12345)
            self.assertDeclined("forbidden", anna.get_invites)
        self.assertEqual(invite_code(" CODE\n"), "CODE")


class Pushes(WithServer):
    """Asking for pushes of a server that sends some, to hosts that it knows."""

    options = ("--push", "on", "--push-hosts", "push.example",
               "--push-resolve", "push.example=127.0.0.1:9")
    keys = b"\4" + secrets.token_bytes(64), secrets.token_bytes(16)

    def test_subscribing(self):
        with self.client("anna") as anna:
            key = base64.urlsafe_b64decode(anna.server.push_key + "=")
            self.assertEqual((len(key), key[0]), (65, 4))
            anna.subscribe_push("https://push.example/anna", *self.keys)
            anna.subscribe_push("https://push.example/anna", *self.keys)
            anna.subscribe_push()
            elsewhere = "https://192.0.2.1/push"
            self.assertDeclined("bad-endpoint", anna.subscribe_push, elsewhere, *self.keys)
            self.assertDeclined("malformed", anna.subscribe_push, "https://push.example/anna")


class NoPushes(WithServer):
    """Asking for pushes of a server that sends none."""

    options = ("--push", "off")

    def test_subscribing(self):
        with self.client("anna") as anna:
            self.assertEqual(anna.server.push_key, "")
            anna.subscribe_push()
            endpoint = "https://push.example/anna"
            self.assertDeclined("push-off", anna.subscribe_push, endpoint, *Pushes.keys)


class Messages(WithServer):
    """Replies and reactions."""

    def test_replies(self):
        with self.client("anna") as anna, self.client("boris") as boris:
            chat = anna.create_chat("answers")
            boris.join_chat(chat)
            said = self.collect(boris)
            first = anna.send(chat, "a question")
            anna.send(chat, "an answer", reply_to=first)
            self.pump(boris, lambda: len(said) == 2)
            self.assertEqual([message.reply_to for _, message in said], [0, first.id])
            anna.delete_msg(chat, first)
            boris.send(chat, "another", reply_to=said[1][1])
            self.assertEqual(anna.request_chat_page(chat)[-1].reply_to, said[1][1].id)
            late = functools.partial(anna.send, reply_to=first)
            self.assertDeclined("no-such-message", late, chat, "too late")

    def test_reactions(self):
        with self.client("anna") as anna, self.client("boris") as boris:
            chat = anna.create_chat("feelings")
            boris.join_chat(chat)
            said, changes = self.collect(boris), self.collect(boris, "reaction")
            self.settle(boris)
            sent = anna.send(chat, "news")
            updated = anna.react(chat, sent, "👍")
            self.assertEqual(anna.react(chat, sent, "👍"), updated)
            self.pump(boris, lambda: changes)
            (where, change), = changes
            self.assertEqual((where, change.message, change.updated), (chat, sent.id, updated))
            self.assertEqual((change.user, change.is_on, change.emoji), (anna.user_id, True, "👍"))
            boris.react(chat, said[0][1], "👍")
            boris.react(chat, sent.id, "+1")
            message, = boris.request_chat_page(chat)
            self.assertEqual(message.reactions, (
                ("👍", 2, (anna.user_id, boris.user_id)), ("+1", 1, (boris.user_id,)),
            ))
            self.assertFalse(message.is_new or message.is_edited)
            self.assertEqual(anna.get_reactions(chat, sent), [
                (anna.user_id, "👍"), (boris.user_id, "👍"), (boris.user_id, "+1"),
            ])
            anna.react(chat, sent, "👍", False)
            self.pump(boris, lambda: len(changes) == 2)
            self.assertFalse(changes[1][1].is_on)
            self.assertDeclined("bad-name", anna.react, chat, sent, "a b")
            self.assertEqual(len(said), 1, "a reaction is no message")

    def test_what_was_missed_is_new_once(self):
        gate = self.gate()
        with self.client("anna") as anna, self.client("boris", gate.address) as boris:
            chat = anna.create_chat("absence")
            boris.join_chat(chat)
            said = self.collect(boris)
            anna.send(chat, "before")
            self.pump(boris, lambda: said)
            gate.cut()
            old, edited = said[0][1], anna.send(chat, "to be edited")
            reacted, deleted = anna.send(chat, "to be liked"), anna.send(chat, "to go")
            anna.send(chat, "plain")
            anna.react(chat, reacted, "👍")
            anna.react(chat, old, "👍")
            anna.edit_msg(chat, edited, "edited")
            anna.delete_msg(chat, deleted)
            boris.reconnect()
            self.pump(boris, lambda: len(said) == 6)
            anna.edit_msg(chat, edited, "again")
            self.pump(boris, lambda: len(said) == 7)
            got = [(message.content, message.is_new) for _, message in said]
            self.assertEqual(got, [
                ("before", True), ("plain", True), ("to be liked", True), ("before", False),
                ("edited", True), ("", False), ("again", False),
            ])


class Copies(WithServer):
    """A copy kept by events equals one that is read afresh."""

    def fresh(self, name):
        """All messages of a user's chats, read at once."""
        with self.client(name) as reader:
            messages = {info.id: {} for info in reader.get_my_chats()}
            for chat, message in reader.request_updates(0):
                messages[chat][message.id] = message
        return {chat: found for chat, found in messages.items() if found}

    def test_random_changes_and_cuts(self):
        seed = int(os.environ.get("PURPOSE_SEED", 19))
        dice, gate = random.Random(seed), self.gate()
        with self.client("anna") as anna, \
                self.client(address=gate.address, from_start=True) as boris:
            copy, news = ChatCopy(boris), collections.Counter()
            boris.on("message")(lambda _, message: news.update([message.id] * message.is_new))
            boris.login("boris", PASSWORD)
            vera = self.client("vera")
            chats = [anna.create_chat(f"copied{number}") for number in range(3)]
            for chat in chats:
                vera.join_chat(chat)
                anna.send(chat, "before")
                boris.join_chat(chat)
            sent = {chat: [] for chat in chats}
            for step in range(400):
                who, chat = dice.choice([anna, boris, vera]), dice.choice(chats)
                self.change(dice, who, chat, sent[chat])
                if dice.random() < 0.03:
                    gate.cut()
                if dice.random() < 0.2:
                    self.poll_on(boris)
                if step % 100 == 50:
                    self.poll_on(boris)
                    boris.leave_chat(chats[0])
                    boris.join_chat(chats[0])
            self.poll_on(boris)
            mine = {chat: found for chat, found in copy.messages.items() if found}
            self.assertEqual(mine, self.fresh("boris"))
            reactions = [m.reactions for m in copy.of(chats[1]) if m.reactions]
            self.assertTrue(reactions, "something was tried")
            # The first chat was left, and was new again afterwards.
            for chat in chats[1:]:
                for message in copy.of(chat):
                    is_mine, count = message.sender == boris.user_id, news[message.id]
                    self.assertLessEqual(count, 0 if is_mine else 1, message)
                    self.assertTrue(count or is_mine or message.is_deleted, message)

    def change(self, dice, who, chat, sent):
        """One random change of a chat, which may break with the connection or be declined."""
        mine = [message for author, message in sent if author is who]
        kind = dice.choice(["send", "send", "reply", "file", "react", "react", "edit", "delete"])
        try:
            if kind == "file":
                self_sent = who.send(chat, "a file", files=[dice.randbytes(100)])
                sent.append((who, self_sent))
            elif kind in ("react", "reply") and sent:
                _, target = dice.choice(sent)
                if kind == "react":
                    who.react(chat, target, dice.choice("👍🎉❤"), dice.random() < 0.7)
                else:
                    sent.append((who, who.send(chat, "an answer", reply_to=target)))
            elif kind == "edit" and mine:
                who.edit_msg(chat, dice.choice(mine), f"edited {dice.random()}")
            elif kind == "delete" and mine and dice.random() < 0.3:
                who.delete_msg(chat, dice.choice(mine))
            else:
                sent.append((who, who.send(chat, f"said {dice.random()}")))
        except Disconnected:
            who.reconnect()
        except Exception as error:
            self.assertIn(getattr(error, "code", error), ("no-such-message", "rate-limited"))

    def poll_on(self, client):
        """Delivers all that there is, over breaks."""
        while True:
            try:
                self.settle(client)
                return
            except Disconnected:
                client.reconnect()

    def test_more_reactions_than_are_shown(self):
        names = [f"fan{number}" for number in range(24)]
        for name in names:
            with self.client() as new:
                new.register_user(name, PASSWORD)
        with self.client("anna") as anna, self.client(from_start=True) as boris:
            chat = anna.create_chat("famous")
            sent = anna.send(chat, "a hit")
            copy = ChatCopy(boris)
            boris.login("boris", PASSWORD)
            boris.join_chat(chat)
            self.settle(boris)
            fans = [self.client(name) for name in names]
            for fan in fans:
                fan.join_chat(chat)
                fan.react(chat, sent, "🎉")
            for fan in (fans[3], fans[22]):
                fan.react(chat, sent, "🎉", False)
            self.settle(boris)
            message, = copy.of(chat)
            self.assertEqual(message.reactions[0].count, 22)
            self.assertEqual(len(message.reactions[0].users), 20)
            self.assertEqual({chat: {sent.id: message}}[chat], self.fresh("boris")[chat])

    def test_a_copy_over_a_restart(self):
        state = os.path.join(self.folder.name, "copy.json")
        with self.client("anna") as anna:
            chat = anna.create_chat("restarted")
            sent = [anna.send(chat, f"before {number}") for number in range(20)]
            anna.react(chat, sent[3], "\N{PARTY POPPER}")
            heard = []
            for start in range(3):
                with self.client(from_start=True, state_file=state) as boris:
                    copy, infos = ChatCopy(boris), self.collect(boris, "chat")
                    got = self.collect(boris)
                    boris.start("boris", PASSWORD)
                    boris.join_chat(chat)
                    self.settle(boris)
                    self.assertEqual({m.id: m for m in copy.of(chat)}, self.fresh("boris")[chat])
                    self.assertEqual(copy.info[chat].name, "restarted")
                    self.assertIn(chat, [info.id for info, in infos])
                    heard.append([(m.content, m.is_new) for c, m in got if c == chat])
                anna.edit_msg(chat, sent[start], f"edited {start}")
                anna.send(chat, f"after {start}")
            self.assertEqual(len(heard[0]), 20)
            self.assertEqual(heard[1:], [[(f"edited {n}", False), (f"after {n}", True)]
                                         for n in range(2)])

    def test_a_copy_of_one_who_logs_in_again(self):
        with self.client("anna") as anna, self.client(from_start=True) as boris:
            chat, copy, got = anna.create_chat("again"), ChatCopy(boris), self.collect(boris)
            boris.login("boris", PASSWORD)
            boris.join_chat(chat)
            anna.send(chat, "one")
            self.settle(boris)
            boris.logoff()
            anna.send(chat, "two")
            boris.login("boris", PASSWORD)
            self.settle(boris)
            self.assertEqual([m.content for c, m in got if c == chat], ["one", "two"])
            self.assertEqual([m.content for m in copy.of(chat)], ["one", "two"])

    def test_a_copy_on_older_versions(self):
        for version in (API_0_1, API_1_0):
            with self.client("anna") as anna, \
                    self.client(from_start=True, version=version) as boris:
                chat, copy = anna.create_chat(f"old{version[0]}"), ChatCopy(boris)
                boris.login("boris", PASSWORD)
                boris.join_chat(chat)
                self.settle(boris)
                mine = boris.send(chat, "mine")
                anna.send(chat, "hers")
                if version == API_1_0:
                    boris.edit_msg(chat, mine, "mine, edited")
                    self.settle(boris)
                    deleted = boris.send(chat, "gone")
                    boris.delete_msg(chat, deleted)
                self.settle(boris)
                fresh = {message.id: message for message in boris.request_chat_msg(chat)}
                self.assertEqual({m.id: m for m in copy.of(chat)}, fresh)

    def test_a_copy_needs_the_beginning(self):
        with self.client() as client, self.assertRaises(ValueError):
            ChatCopy(client)


class CommandLine(WithServer):
    """What the command line makes is what the library uses."""

    options = ("--registration", "invite")

    def test_its_invites(self):
        done = subprocess.run(
            [BINARY, "invite", "add", "--chat", "hall", "--data", self.server.data],
            capture_output=True, text=True, check=True,
        )
        with self.client() as new:
            new.register_user("sofia", "a long password", done.stdout)
            new.login("sofia", "a long password")
            self.assertEqual([info.name for info in new.get_my_chats()], ["hall"])
