"""A client of the Purpose protocol: blocking calls, callbacks, nothing but the standard library.

    from purpose import Client

    bot = Client("127.0.0.1:7420")
    bot.login("echo", "correct horse")
    bot.join_chat(bot.get_chat_id("hall"))

    @bot.on("message")
    def answer(chat, message):
        if message.is_new and message.sender != bot.user_id:
            bot.send(chat, message.content, reply_to=message)

    bot.run()

Calls are named as the purposes of the protocol are. A call sends its request and waits for the
answer; what comes unasked meanwhile waits in a bounded queue until `run` or `poll` delivers it to
the callbacks, so a callback may make calls of its own. One thread uses a client at a time.

When the connection breaks, it is made anew and the session restored: by `run`, and by every call
that is safe to repeat. That includes `send`, whose nonce keeps a message from being stored twice,
`upload` and `download`. Other calls raise `Disconnected`: nobody knows whether they were carried
out. Afterwards each chat is read on from where its last change was delivered (`state` keeps that
over a restart), so that nothing is missed, and nothing is delivered twice while the process lives.

Python 3.9 or newer.
"""

from .calls import invite_code
from .chat_copy import ChatCopy
from .errors import Declined, Disconnected, ProtocolError, PurposeError, SessionEnded
from .files import FileBase
from .transport import Link, Tls, WebSocket
from .wire import (
    API_0_1, API_1_0, API_1_1, NOTIFY_EVERYTHING, NOTIFY_MENTIONS, NOTIFY_NOTHING,
    REGISTRATION_CLOSED, REGISTRATION_INVITE, REGISTRATION_OPEN, ChatInfo, File, Hello, Invite,
    Member, Message, Reaction, ReactionChange, ResetCode, Sent, Session, User,
)


class Client(FileBase):
    """A connection to a server, and the session that outlives it.

    address      "host:port", "[::1]:port" or a pair; "ws://host/ws" or "wss://host/ws" goes through
                 a WebSocket, the second over TLS
    tls          speak TLS; so do fingerprint (as `vestnik cert fingerprint` prints it) and ca_file
    version      the newest API to speak: API_1_1, API_1_0 or API_0_1; `server` has what is spoken
    timeout      seconds to connect, and from a request to its answer
    retry_seconds  seconds for which a broken connection is tried again; None: for ever, 0: never
    state_file   keeps the session and the cursors over a restart; see `start`
    queue_bytes  bound of what waits for the callbacks
    from_start   deliver all messages of one's chats, not only what comes after the first login
    source       the address of this machine to connect from
    """


__all__ = [
    "API_0_1", "API_1_0", "API_1_1", "ChatCopy", "ChatInfo", "Client", "Declined", "Disconnected",
    "File", "Hello", "Invite", "Link", "Member", "Message", "NOTIFY_EVERYTHING", "NOTIFY_MENTIONS",
    "NOTIFY_NOTHING", "ProtocolError", "PurposeError", "REGISTRATION_CLOSED",
    "REGISTRATION_INVITE", "REGISTRATION_OPEN", "Reaction", "ReactionChange", "ResetCode", "Sent",
    "Session", "SessionEnded", "Tls", "User", "WebSocket", "invite_code",
]
