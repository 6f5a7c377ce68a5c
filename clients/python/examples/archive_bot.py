#!/usr/bin/env python3
"""Saves the files of a chat to a folder: archive_bot.py ADDRESS NAME PASSWORD CHAT FOLDER

It downloads every file that somebody sends, and reacts to its message. It answers `!list` with a
text file that lists them all. After a restart it continues where it was, and misses nothing.
"""

import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from purpose import Client, Declined

DONE = "\N{FLOPPY DISK}"


def main(address, name, password, chat_name, folder):
    os.makedirs(folder, exist_ok=True)
    bot = Client(address, state_file=os.path.join(folder, ".state"))
    bot.start(name, password)
    bot.join_chat(bot.get_chat_id(chat_name))

    @bot.on("message")
    def keep(chat, message):
        if message.sender == bot.user_id or not message.is_new:
            return
        try:
            for file in message.files:
                # A message may come a second time after a restart; a path of its own keeps that
                # from making a second copy.
                bot.download(file, os.path.join(folder, f"{file.id}-{file.name}"))
            if message.files:
                bot.react(chat, message, DONE)
            if message.content == "!list":
                kept = (entry.partition("-") for entry in sorted(os.listdir(folder)))
                names = [name for number, _, name in kept if number.isdigit()]
                listing = bot.upload(chat, "\n".join(names + [""]).encode(), name="files.txt")
                bot.send(chat, f"{len(names)} files", files=[listing], reply_to=message)
        except Declined as declined:
            # The message or its files may be gone by now.
            print(f"message {message.id}: {declined}", file=sys.stderr)

    bot.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
