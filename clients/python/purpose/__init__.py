"""A client of the Purpose protocol: blocking calls and callbacks, standard library only.

    from purpose import Client

    bot = Client("127.0.0.1:7420")
    bot.login("echo", "correct horse")
    bot.join_chat(bot.get_chat_id("hall"))

    @bot.on("message")
    def answer(chat, message):
        if message.is_new and message.sender != bot.user_id:
            bot.send(chat, message.content, reply_to=message)

    bot.run()

Calls have the names of the protocol's purposes. A call sends its request and waits for the answer.
Notifications that arrive meanwhile wait in a bounded queue until `run` or `poll` delivers them to
the callbacks, so a callback may make calls. A client is not thread-safe: use it from one thread.

When the connection breaks, the client reconnects and restores the session: in `run`, and in every
call that is idempotent. These include `send` (its nonce prevents a second message), `upload` and
`download`. Other calls raise `Disconnected`, because it is not known whether they were carried out.
After that the client catches up: it reads each chat from its cursor, the last change that was
delivered (`state` saves the cursors for a restart). Nothing is missed, and while the process lives
nothing is delivered twice.

Python 3.9 or newer.
"""

from .calls import invite_code
from .chat_copy import ChatCopy
from .errors import Declined, Disconnected, ProtocolError, PurposeError, SessionEnded
from .files import FileBase, local_name
from .transport import Link, Tls, WebSocket
from .wire import (
    API_0_1, API_1_0, API_1_1, NOTIFY_EVERYTHING, NOTIFY_MENTIONS, NOTIFY_NOTHING,
    REGISTRATION_CLOSED, REGISTRATION_INVITE, REGISTRATION_OPEN, ChatInfo, File, Hello, Invite,
    Member, Message, Reaction, ReactionChange, ResetCode, Sent, Session, User,
)


class Client(FileBase):
    """A connection to a server, and the session that outlives it.

    address      "host:port", "[::1]:port" or a pair; "ws://host/ws" or "wss://host/ws" connects
                 through a WebSocket, wss over TLS
    tls          use TLS; fingerprint (as `vestnik cert fingerprint` prints it) and ca_file imply it
    version      highest API to use: API_1_1, API_1_0 or API_0_1; `server` has the actual version
    timeout      seconds to connect, and from a request to its answer or the next part of that
    retry_seconds  seconds for which to retry a broken connection; None: forever, 0: never
    state_file   file that saves the session and the cursors over a restart; see `start`
    queue_bytes  bound of the events that wait for the callbacks
    answer_bytes  bound of one answer, such as that of `request_updates`
    from_start   deliver all messages of the user's chats, not only those after the first login
    source       local address to connect from
    """


__all__ = [
    "API_0_1", "API_1_0", "API_1_1", "ChatCopy", "ChatInfo", "Client", "Declined", "Disconnected",
    "File", "Hello", "Invite", "Link", "Member", "Message", "NOTIFY_EVERYTHING", "NOTIFY_MENTIONS",
    "NOTIFY_NOTHING", "ProtocolError", "PurposeError", "REGISTRATION_CLOSED",
    "REGISTRATION_INVITE", "REGISTRATION_OPEN", "Reaction", "ReactionChange", "ResetCode", "Sent",
    "Session", "SessionEnded", "Tls", "User", "WebSocket", "invite_code", "local_name",
]
