"""Files: sending, uploads and downloads that are cut, restarts, and what is declined."""

import functools
import hashlib
import io
import os
import pathlib
import random
import threading
import time

from purpose import Client, Declined, Disconnected, File, ProtocolError, local_name, wire

from .support import PASSWORD, WithServer

MIB = 1 << 20


def some_bytes(count, seed=1):
    return random.Random(seed).randbytes(count)


class CutAt:
    """Progress that does something each time another part of the file is through."""

    def __init__(self, action, every):
        self.action, self.every, self.next = action, every, every
        self.seen, self.count = [], 0

    def __call__(self, done, size):
        self.seen.append((done, size))
        if done >= self.next and done < size:
            self.next = done + self.every
            self.count += 1
            self.action()


class Sending(WithServer):
    """Messages with files."""

    def test_every_kind_of_source(self):
        path = os.path.join(self.folder.name, "отчёт 2026.pdf")
        with open(path, "wb") as file:
            file.write(b"a report")
        picture = io.BytesIO(b"skipped" + some_bytes(200_000))
        picture.seek(7)
        with self.client("anna") as anna, self.client("boris") as boris:
            chat = anna.create_chat("files")
            boris.join_chat(chat)
            said, seen = self.collect(boris), []
            uploaded = anna.upload(chat, picture, name="photo.png", width=640, height=480)
            anna.send(chat, "two files", files=[path, uploaded],
                      progress=lambda done, size: seen.append((done, size)))
            anna.send(chat, files=[b"no text"])
            self.pump(boris, lambda: len(said) == 2)
            report, photo = said[0][1].files
            self.assertEqual((report.name, report.size), ("отчёт 2026.pdf", 8))
            self.assertEqual(report.media_type, "application/pdf")
            self.assertEqual(photo, uploaded)
            self.assertEqual((photo.width, photo.height, photo.media_type), (640, 480, "image/png"))
            self.assertEqual(seen, [(8, 8)])
            self.assertEqual(boris.download(photo), picture.getvalue()[7:])
            self.assertEqual(said[1][1].files[0].name, "file")
            self.assertEqual(boris.request_chat_page(chat)[0].files, (report, photo))

    def test_where_downloads_go(self):
        folder = os.path.join(self.folder.name, "downloads")
        os.mkdir(folder)
        with self.client("anna") as anna:
            chat = anna.create_chat("downloads")
            file = anna.upload(chat, some_bytes(100_000), name="notes.txt")
            data, target, seen = some_bytes(100_000), io.BytesIO(), []
            anna.send(chat, files=[file])
            anna.download(file, target, lambda done, size: seen.append((done, size)))
            self.assertEqual(target.getvalue(), data)
            self.assertEqual(seen, [(65_536, 100_000), (100_000, 100_000)])
            paths = [anna.download(file, folder) for _ in range(2)]
            self.assertEqual([os.path.basename(path) for path in paths],
                             ["notes.txt", "notes (2).txt"])
            paths.append(anna.download(file, os.path.join(folder, "other")))
            # What an earlier process left is not asked for again.
            with open(os.path.join(folder, f"third.{file.id}.part"), "wb") as part:
                part.write(data[:90_000])
            seen.clear()
            paths.append(anna.download(file, os.path.join(folder, "third"),
                                       lambda done, size: seen.append(done)))
            self.assertEqual(seen, [100_000])
            with open(os.path.join(folder, f"fourth.{file.id}.part"), "wb") as part:
                part.write(data * 2)
            paths.append(anna.download(file, os.path.join(folder, "fourth")))
            for name in ("../outside", "..", "a\\b", "/etc/x", "a\n"):
                with self.assertRaises(ProtocolError):
                    anna.download(file._replace(name=name), folder)
            for path in paths:
                with open(path, "rb") as found:
                    self.assertEqual(found.read(), data)
            self.assertEqual(len(os.listdir(folder)), 5)

    def test_one_file_needs_no_list(self):
        path = os.path.join(self.folder.name, "one.txt")
        with open(path, "wb") as file:
            file.write(b"one")
        with self.client("anna") as anna:
            chat = anna.create_chat("single")
            uploaded = anna.upload(chat, b"one", name="one.txt")
            for source in (path, pathlib.Path(path), b"one", io.BytesIO(b"one"), uploaded):
                anna.send(chat, files=source)
                file, = anna.request_chat_page(chat, limit=1)[0].files
                self.assertEqual(anna.download(file), b"one")
            with self.assertRaises(ValueError):
                anna.send(chat, files=[path] * 11)

    def test_long_names_are_cut(self):
        folder = os.path.join(self.folder.name, "long")
        os.mkdir(folder)
        with self.client("anna") as anna:
            chat = anna.create_chat("long-names")
            for name in ("n" * 251 + ".txt", "\N{CYRILLIC SMALL LETTER ZHE}" * 125 + ".jpeg",
                         "a." + "e" * 253):
                file = anna.upload(chat, b"content", name=name)
                anna.send(chat, files=file)
                paths = [anna.download(file, folder) for _ in range(2)]
                # A path of the user's own is not cut; its incomplete file is.
                paths.append(anna.download(file, os.path.join(folder, "p" * 255)))
                for path in paths:
                    with open(path, "rb") as found:
                        self.assertEqual(found.read(), b"content")
                stem, ending = os.path.splitext(name)
                self.assertTrue(os.path.basename(paths[0]).startswith(stem[:100]))
                self.assertEqual(os.path.splitext(paths[0])[1], ending[:32])
        for name in ("n" * 300, "e." + "x" * 300):
            self.assertLess(len(local_name(File(7, 1, 0, 0, "a/b", name), "7-")), 255)

    def test_what_is_declined(self):
        with self.client("anna") as anna, self.client("boris") as boris:
            chat = anna.create_chat("declined")
            boris.join_chat(chat)
            self.assertDeclined("too-large", anna.begin_file, chat, 26 * MIB, "large")
            self.assertDeclined("malformed", anna.begin_file, chat, 0, "empty")
            self.assertDeclined("bad-name", anna.begin_file, chat, 1, "a/b")
            self.assertDeclined("bad-name", anna.begin_file, chat, 1, "a", "no type")
            file = anna.begin_file(chat, 10, "ten")
            self.assertEqual(anna.put_file(file.id, 0, b"12345"), 5)
            self.assertEqual(self.assertDeclined("bad-offset", anna.put_file, file.id, 7, b"8"
                                                 ).number, 5)
            self.assertDeclined("too-large", anna.put_file, file.id, 5, b"678901")
            self.assertDeclined("no-such-file", boris.get_file, file.id, 0)
            half = functools.partial(anna.send, files=[file])
            self.assertDeclined("no-such-file", half, chat)
            with self.assertRaises(ValueError):
                anna.continue_upload(file, b"123")
            anna.continue_upload(file, b"1234567890")
            anna.send(chat, files=[file])
            self.assertDeclined("no-such-file", half, chat)
            self.assertEqual(boris.get_file(file.id, 3, 4), b"4567")
            self.assertEqual(boris.get_file(file.id, 10), b"")
            anna.end_file(file)
            self.assertEqual(boris.download(file), b"1234567890")
            given_up = anna.begin_file(chat, 10, "gone")
            anna.end_file(given_up)
            self.assertDeclined("no-such-file", anna.put_file, given_up.id, 0, b"1")

    def test_a_deleted_message_takes_its_files(self):
        with self.client("anna") as anna:
            chat = anna.create_chat("deleted")
            sent = anna.send(chat, files=[b"to go"])
            file, = anna.request_chat_page(chat)[0].files
            anna.delete_msg(chat, sent)
            self.assertDeclined("no-such-file", anna.download, file)
            self.assertEqual(anna.request_chat_page(chat)[0].files, ())

    def test_messages_come_while_a_file_goes(self):
        """More than the server queues for one connection, so that it stops to read."""
        with self.client("anna") as anna, self.client("boris") as boris:
            chat = anna.create_chat("busy")
            boris.join_chat(chat)
            said, count = self.collect(boris), 200

            def talk():
                for number in range(count):
                    anna.send(chat, f"{number} " + "x" * 16_000)

            talker = threading.Thread(target=talk)
            talker.start()
            data = some_bytes(4 * MIB)
            sent = boris.send(chat, "at last", files=[data])
            talker.join()
            self.pump(boris, lambda: len(said) == count)
            self.assertEqual([int(m.content.split()[0]) for _, m in said], list(range(count)))
            file, = next(m for m in anna.request_chat_page(chat, limit=300) if m.id == sent.id).files
            self.assertEqual(anna.download(file), data)


class Cuts(WithServer):
    """The largest file that there is, over a connection that breaks, and a server that is killed."""

    data = some_bytes(25 * MIB, 25)

    def check_transfer(self, address):
        """Sends the file over cuts, and reads it over cuts."""
        gate = self.gate()
        url = f"ws://127.0.0.1:{gate.address[1]}/ws" if address == "ws" else gate.address
        with self.client("anna", url) as anna:
            chat = anna.create_chat(f"large-{address}")
            up, down = CutAt(gate.cut, 5 * MIB), CutAt(gate.cut, 5 * MIB)
            anna.send(chat, "large", files=[self.data], progress=up)
            self.assertGreaterEqual(up.count, 3)
            self.assertEqual(up.seen[-1], (25 * MIB, 25 * MIB))
            # Nothing that was stored is sent a second time.
            self.assertEqual(sorted(set(up.seen)), up.seen)
            file, = anna.request_chat_page(chat)[0].files
            target = os.path.join(self.folder.name, "large")
            anna.download(file, target, down)
            self.assertGreaterEqual(down.count, 3)
            with open(target, "rb") as found:
                same = hashlib.sha256(found.read()).digest() == hashlib.sha256(self.data).digest()
            self.assertTrue(same)
            self.assertEqual(len(anna.request_chat_page(chat)), 1)

    def test_over_tcp(self):
        self.check_transfer("tcp")

    def test_over_websocket(self):
        self.check_transfer("ws")

    def test_a_lost_answer_is_not_the_end(self):
        gate = self.gate()
        with self.client("anna", gate.address) as anna:
            chat = anna.create_chat("lost")

            def lose():
                gate.swallow_answers = True
                threading.Timer(0.3, gate.cut).start()

            lose()
            file = anna.upload(chat, self.data[: 2 * MIB], progress=CutAt(lose, MIB))
            lose()
            anna.send(chat, "once", files=[file])
            message, = anna.request_chat_page(chat)
            self.assertEqual(anna.download(message.files[0]), self.data[: 2 * MIB])

    def test_stored_bytes_are_not_sent_again(self):
        gate = self.gate()
        with self.client("anna", gate.address) as anna:
            chat, sent, ask = anna.create_chat("sparing"), [], anna._ask

            def count(purpose, body=b"", on_part=None):
                if purpose == wire.PUT_FILE:
                    sent.append(len(body) - 16)
                return ask(purpose, body, on_part)

            def lose():
                gate.swallow_answers = True
                threading.Timer(0.3, gate.cut).start()

            anna._ask = count
            progress = CutAt(lose, 2 * MIB)
            file = anna.upload(chat, self.data[: 6 * MIB], progress=progress)
            self.assertGreaterEqual(progress.count, 2)
            self.assertLessEqual(sum(sent), 6 * MIB + progress.count)
            anna.send(chat, files=file)
            self.assertEqual(anna.download(file), self.data[: 6 * MIB])

    def test_an_upload_that_is_ended_twice(self):
        gate = self.gate()
        with self.client("anna", gate.address) as anna:
            file = anna.begin_file(anna.create_chat("ended"), 10, "gone")
            gate.swallow_answers = True
            threading.Timer(0.3, gate.cut).start()
            anna.end_file(file)
            self.assertDeclined("no-such-file", anna.put_file, file.id, 0, b"1")

    def test_going_on_in_another_process(self):
        gate = self.gate()
        with self.client("anna", gate.address, retry_seconds=0) as anna:
            chat = anna.create_chat("resumed")
            file = anna.begin_file(chat, 3 * MIB, "resumed.bin")
            with self.assertRaises(Disconnected):
                anna.continue_upload(file, self.data[: 3 * MIB], CutAt(gate.cut, MIB))
        kept = [list(file)]
        with self.client("anna") as again:
            seen = CutAt(lambda: None, MIB)
            file = File(*kept[0])
            again.continue_upload(file, self.data[: 3 * MIB], seen)
            self.assertGreaterEqual(seen.seen[0][0], MIB)
            again.send(chat, "resumed", files=[file])
            self.assertEqual(again.download(file), self.data[: 3 * MIB])


class Killed(WithServer):
    """kill -9 of the server in the middle of an upload, time and again."""

    def restart(self):
        self.server.kill()
        self.server.start(*self.options, port=self.server.address[1])

    def test_an_upload_goes_on(self):
        data = some_bytes(12 * MIB, 9)
        with self.client("anna") as anna:
            chat = anna.create_chat("killed")
            progress = CutAt(self.restart, 3 * MIB)
            sent = anna.send(chat, "survived", files=[data], progress=progress)
            self.assertGreaterEqual(progress.count, 3)
            # What was acknowledged was there each time: the upload went on from it or later.
            self.assertEqual([done for done, _ in progress.seen],
                             sorted(done for done, _ in progress.seen))
            message, = anna.request_chat_page(chat)
            self.assertEqual(message.id, sent.id)
            down = CutAt(self.restart, 3 * MIB)
            self.assertEqual(anna.download(message.files[0], None, down), data)
        self.server.admin("check")


class Quotas(WithServer):
    """Limits of the server reach the caller as they are."""

    options = ("--file-limit", "100000", "--user-files-limit", "150000")

    def test_them(self):
        with Client(self.server.address) as anna:
            anna.login("anna", PASSWORD)
            self.assertEqual(anna.server.max_file, 100_000)
            chat = anna.create_chat("quotas")
            anna.send(chat, files=[b"x" * 90_000])
            begun = time.monotonic()
            with self.assertRaises(Declined) as caught:
                anna.send(chat, "more", files=[b"x" * 90_000])
            self.assertEqual(caught.exception.code, "quota-exceeded")
            self.assertLess(time.monotonic() - begun, 10)
            self.assertEqual(len(anna.request_chat_page(chat)), 1)
