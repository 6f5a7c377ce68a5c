"""The examples do what they say."""

import os
import subprocess
import sys

from .support import HERE, PASSWORD, WithServer

EXAMPLES = HERE.parent / "examples"


class Bot(WithServer):
    """The example of ten lines."""

    def test_it_echoes(self):
        host, port = self.server.address
        command = [sys.executable, str(EXAMPLES / "echo_bot.py"), f"{host}:{port}", "boris", PASSWORD,
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


class ArchiveBot(WithServer):
    """The example that keeps files."""

    def start(self, folder):
        host, port = self.server.address
        command = [sys.executable, str(EXAMPLES / "archive_bot.py"), f"{host}:{port}", "boris",
                   PASSWORD, "hall", folder]
        bot = subprocess.Popen(command)
        self.addCleanup(bot.wait)
        self.addCleanup(bot.kill)
        return bot

    def test_it_keeps_files_over_a_restart(self):
        folder = os.path.join(self.folder.name, "kept")
        with self.client("anna") as anna:
            hall = anna.get_chat_id("hall")
            present, reactions = self.collect(anna, "presence"), self.collect(anna, "reaction")
            said = self.collect(anna)
            bot = self.start(folder)
            self.pump(anna, lambda: present)
            anna.send(hall, "one", files=[anna.upload(hall, b"first", name="a.txt")])
            self.pump(anna, lambda: len(reactions) == 1)
            bot.terminate()
            self.pump(anna, lambda: present[-1][1] is False)
            anna.send(hall, "two", files=[anna.upload(hall, b"second", name="b.txt")])
            self.start(folder)
            self.pump(anna, lambda: len(reactions) == 2)
            question = anna.send(hall, "!list")
            self.pump(anna, lambda: said)
            answer = said[0][1]
            self.assertEqual((answer.content, answer.reply_to), ("2 files", question.id))
            self.assertEqual(anna.download(answer.files[0]), b"a.txt\nb.txt\n")

    def test_a_file_that_cannot_be_saved_does_not_end_it(self):
        folder = os.path.join(self.folder.name, "hindered")
        with self.client("anna") as anna:
            hall = anna.get_chat_id("hall")
            present, reactions = self.collect(anna, "presence"), self.collect(anna, "reaction")
            bot = self.start(folder)
            self.pump(anna, lambda: present)
            hindered = anna.upload(hall, b"no", name="a.txt")
            # Where the file belongs there is a folder.
            os.mkdir(os.path.join(folder, f"{hindered.id}-a.txt.{hindered.id}.part"))
            anna.send(hall, files=hindered)
            long = anna.send(hall, files=anna.upload(hall, b"yes", name="n" * 250 + ".txt"))
            self.pump(anna, lambda: reactions)
            self.assertEqual(reactions[0][1].message, long.id)
            self.assertIsNone(bot.poll())
            name = max(os.listdir(folder), key=len)
            with open(os.path.join(folder, name), "rb") as file:
                self.assertEqual(file.read(), b"yes")
            self.assertTrue(name.endswith("nnn.txt"), name)
