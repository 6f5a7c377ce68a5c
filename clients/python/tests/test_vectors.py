"""The golden frames of docs/vectors.json, against a client whose connection is recorded."""

import collections
import json
import unittest

from purpose import Client, session, wire

from .support import ROOT

# Parts of structures that have no value of their own in this library.
STRUCTURAL = ("extra_bytes", "kind", "length", "shown", "count")
# What this client never sends, or sends in another form alone.
NOT_SENT = ("ACCEPTED", "DECLINED", "PART")


def version_of(text):
    return tuple(int(part) for part in text.split("."))


def values_of(vector):
    """The values of a vector's fields, bytes as bytes."""
    return [bytes.fromhex(field["value"]) if field["type"] == "bytes" else field["value"]
            for field in vector["fields"]]


def leaves(value):
    """Everything in a result that is no tuple or list."""
    if isinstance(value, (tuple, list)):
        return [leaf for part in value for leaf in leaves(part)]
    return [value]


class RecordedLink:
    """In the place of a connection: notes the requests, and answers each by a vector."""

    answers = {}

    def __init__(self, *_values):
        self.sent, self.incoming = [], collections.deque()
        self.last_byte = 0

    def send(self, data):
        for purpose, task, body in wire.take_frames(bytearray(data)):
            self.sent.append((purpose, body))
            self.incoming.append((wire.ACCEPTED, task, self.answers.get(purpose, b"")))

    def receive(self, _deadline):
        return self.incoming.popleft() if self.incoming else None

    def close(self):
        pass


def call(client, name, values):
    """Makes the call that sends a request with these fields."""
    if name == "HEARTBEAT":
        return client.request(wire.HEARTBEAT, *values)
    if name == "DISCONNECT":
        return client.close()
    if name == "RESTORE_SESSION":
        state = {"session": values, "user_id": 2, "since": 1, "chats": [], "cursors": {}}
        return client.restore(state)
    if name == "SEND_CHAT_MSG" and len(values) > 3:
        chat, content, nonce, _, _, reply_to, _, _, file = values
        return client.send(chat, content, nonce, files=[file], reply_to=reply_to)
    if name == "SEND_CHAT_MSG":
        return client.send(*values)
    if name == "SEARCH_MSG":
        chat, limit, query = values
        return client.search_msg(query, chat, limit)
    if name == "REACT":
        chat, message, is_on, emoji = values
        return client.react(chat, message, emoji, is_on)
    if name == "CREATE_INVITE":
        registers, uses, days, chat = values
        return client.create_invite(chat, registers=registers, uses=uses, days=days)
    if name == "BEGIN_FILE":
        chat, size, width, height, media_type, file_name = values
        return client.begin_file(chat, size, file_name, media_type, width, height)
    return getattr(client, name.lower())(*values)


class Vectors(unittest.TestCase):
    """Each vector in each version that has it."""

    def setUp(self):
        self.vectors = json.loads((ROOT / "docs" / "vectors.json").read_text(encoding="utf-8"))
        link, session.Link = session.Link, RecordedLink
        self.addCleanup(setattr, session, "Link", link)

    def each(self, to, version):
        """The vectors to one side that a version has, as (vector, purpose, body)."""
        for vector in self.vectors:
            if vector["to"] == to and version in map(version_of, vector["versions"]):
                frame = bytearray.fromhex(vector["frame"])
                (purpose, _, body), = wire.take_frames(frame)
                yield vector, purpose, body

    def client(self, version):
        """A client whose requests are answered by the vectors of a version."""
        RecordedLink.answers = {
            getattr(wire, vector["answers"]): body
            for vector, _, body in self.each("client", version) if "answers" in vector
        }
        client = Client(("recorded", 1), version=version, retry_seconds=0)
        client._session = (5, "hash")
        return client

    def test_requests(self):
        count = 0
        for version in (wire.API_0_1, wire.API_1_0, wire.API_1_1):
            for vector, purpose, body in self.each("server", version):
                name, values = vector["name"], values_of(vector)
                is_bare = name == "SEND_CHAT_MSG" and len(values) < 3 and version > wire.API_0_1
                if name in NOT_SENT or is_bare:
                    continue
                with self.subTest(name=name, version=version):
                    client = self.client(version)
                    if name != "HELLO":
                        client._link.sent.clear()
                        call(client, name, values)
                    self.assertEqual(client._link.sent[0], (purpose, body))
                    count += 1
        self.assertGreater(count, 100)

    def test_answers(self):
        """What a call gives holds all that the answer says."""
        requests, count = {}, 0
        for version in (wire.API_0_1, wire.API_1_0, wire.API_1_1):
            requests = {vector["name"]: values_of(vector)
                        for vector, _, _ in self.each("server", version)}
            for vector, _, _ in self.each("client", version):
                name = vector.get("answers")
                if name is None:
                    continue
                with self.subTest(name=name, version=version):
                    client = self.client(version)
                    result = client.server if name == "HELLO" else call(
                        client, name, requests[name])
                    if name in ("LOGIN", "RESTORE_SESSION"):
                        result = [client._session, client.user_id, client.user_flags]
                    self.check_values(vector, result)
                    count += 1
        self.assertGreater(count, 50)

    def check_values(self, vector, result):
        found = leaves(result)
        for field, value in zip(vector["fields"], values_of(vector)):
            if field["name"] not in STRUCTURAL:
                self.assertIn(value, found, field["name"])

    def test_notifications(self):
        """An event holds all that the notification says."""
        count = 0
        for version in (wire.API_0_1, wire.API_1_0, wire.API_1_1):
            for vector, purpose, body in self.each("client", version):
                if "answers" in vector or purpose <= wire.PART:
                    continue
                with self.subTest(name=vector["name"], version=version):
                    client = self.client(version)
                    client._my_chats.add(7)
                    client._link.incoming.append((purpose, 1, body))
                    self.assertTrue(client._pump(0))
                    self.assertTrue(client._queue)
                    self.check_values(vector, [values for _, values in client._queue])
                    count += 1
        self.assertGreater(count, 15)

    def test_what_is_declined(self):
        client = self.client(wire.API_1_1)
        for vector, purpose, body in self.each("client", wire.API_1_1):
            if vector["name"] == "DECLINED":
                pending = client._ask(wire.TYPING, wire.U32.pack(7))
                client._link.incoming.clear()
                client._link.incoming.append((purpose, pending.task, body))
                client._pump(0)
                self.assertEqual(pending.error.code, "not-member")
                self.assertEqual(pending.error.words, "you are not a member of chat 7")


if __name__ == "__main__":
    unittest.main()
