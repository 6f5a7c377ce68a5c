#!/usr/bin/env python3
"""Repeats each message of a chat: echo_bot.py ADDRESS NAME PASSWORD CHAT"""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from purpose import Client

address, name, password, chat = sys.argv[1:]
bot = Client(address)
bot.login(name, password)
bot.join_chat(bot.get_chat_id(chat))

@bot.on("message")
def echo(chat, message):
    if message.is_new and message.sender != bot.user_id:
        bot.send(chat, message.content, reply_to=message)

bot.run()
