#!/usr/bin/env python3
"""Saves the files of a chat to a folder: archive_bot.py ADDRESS NAME PASSWORD CHAT FOLDER

It downloads every file that somebody sends, and reacts to its message. It answers `!list` with a
text file that lists them all. After a restart it continues where it was, and misses nothing. A file
that cannot be saved is reported, and the others are.
"""

import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from purpose import Client, Declined, Disconnected, ProtocolError, local_name

DONE = "\N{FLOPPY DISK}"


def main(address, name, password, chat_name, folder):
    os.makedirs(folder, exist_ok=True)
    bot = Client(address, state_file=os.path.join(folder, ".state"))
    bot.start(name, password)
    bot.join_chat(bot.get_chat_id(chat_name))

    def save(file):
        """Saves a file; returns whether it is there."""
        # A message may come a second time after a restart; a path of its own keeps that from making
        # a second copy.
        try:
            bot.download(file, os.path.join(folder, local_name(file, f"{file.id}-")))
        except Disconnected:
            raise  # the message is delivered again
        except (Declined, ProtocolError, OSError) as error:
            # The file may be gone by now; or the disk does not take it.
            print(f"file {file.id}, {file.name!r}: {error}", file=sys.stderr)
            return False
        return True

    @bot.on("message")
    def keep(chat, message):
        if message.sender == bot.user_id or not message.is_new:
            return
        saved = [save(file) for file in message.files]
        try:
            if saved and all(saved):
                bot.react(chat, message, DONE)
            if message.content == "!list":
                kept = (entry.partition("-") for entry in sorted(os.listdir(folder)))
                names = [name for number, _, name in kept
                         if number.isdigit() and not name.endswith(f".{number}.part")]
                listing = bot.upload(chat, "\n".join(names + [""]).encode(), name="files.txt")
                bot.send(chat, f"{len(names)} files", files=listing, reply_to=message)
        except Declined as declined:
            # The message may be gone by now.
            print(f"message {message.id}: {declined}", file=sys.stderr)

    bot.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
