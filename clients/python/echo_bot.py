#!/usr/bin/env python3
"""Says again what is set in a chat: echo_bot.py HOST:PORT NAME PASSWORD CHAT"""
import sys
from purpose import Client

address, name, password, chat = sys.argv[1:]
bot = Client(address)
bot.login(name, password)
bot.join_chat(bot.get_chat_id(chat))

@bot.on("message")
def echo(chat, message):
    if message.is_new and message.sender != bot.user_id:
        bot.send_chat_msg(chat, message.content)

bot.run()
