"""A client of the Purpose protocol in one file: blocking calls, callbacks, no dependency.

    from purpose import Client

    bot = Client("127.0.0.1:7420")
    bot.login("echo", "correct horse")
    bot.join_chat(bot.get_chat_id("hall"))

    @bot.on("message")
    def answer(chat, message):
        if message.is_new and message.sender != bot.user_id:
            bot.send_chat_msg(chat, message.content)

    bot.run()

Calls are named as the purposes of the protocol are. A call sends its request and waits for the
answer; what comes unasked meanwhile waits in a bounded queue until `run` or `poll` hands it to the
callbacks, so a callback may make calls of its own. One thread uses a client at a time.

When the connection breaks, it is made anew and the session restored: by `run`, and by every call
that is safe to repeat. That includes `send_chat_msg` on API 1.0, whose nonce keeps a message from
being stored twice. Other calls raise `Disconnected`: nobody knows whether they were carried out.
Afterwards each chat is read on from where its last message was handed over (`state` keeps that over
a restart), so that nothing is missed and nothing is notified twice while the process lives.

Python 3.9 or newer.
"""

import base64
import collections
import hashlib
import hmac
import json
import os
import random
import secrets
import socket
import ssl
import struct
import time
import unicodedata
from typing import NamedTuple

ACCEPTED, DECLINED, HEARTBEAT, DISCONNECT, PART = range(0x00, 0x05)
HELLO, LOGIN, LOGOFF, RESTORE_SESSION, GET_USER_ID, GET_CHAT_ID = range(0x20, 0x26)
CHAT_REQ_PASS, JOIN_CHAT, SEND_CHAT_MSG, REQUEST_CHAT_MSG, MARK_SEEN = range(0x26, 0x2B)
REGISTER_USER, CHANGE_PASSWORD, GET_USER, GET_SESSIONS, END_SESSION = range(0x30, 0x35)
CREATE_CHAT, LEAVE_CHAT, START_CHAT, DELETE_CHAT, RENAME_CHAT, SET_CHAT_TITLE = range(0x38, 0x3E)
SET_CHAT_PASSWORD, SET_CHAT_ADMIN, SET_CHAT_BAN, GET_CHAT = range(0x3E, 0x42)
GET_MY_CHATS, GET_MEMBERS, FIND_CHATS = range(0x42, 0x45)
EDIT_MSG, DELETE_MSG, REQUEST_CHAT_PAGE, SEARCH_MSG = range(0x48, 0x4C)
REQUEST_UPDATES, TYPING = range(0x4C, 0x4E)
# From the server, unasked.
MSG_NOTIFY, DEAUTH = 0x20, 0x22
CHAT_NOTIFY, CHAT_GONE, MEMBER_NOTIFY, SEEN_NOTIFY = range(0x30, 0x34)
TYPING_NOTIFY, PRESENCE_NOTIFY = 0x34, 0x35

# Longest body taken from a server: nothing it sends comes near, but for the 1 MiB of a range on
# 0.1.
BODY_BYTES_MAX = 2 << 20
# Ranges asked for at once when many chats are caught up with.
CATCH_UP_WINDOW = 32
# Live messages of one chat that wait while it is caught up with; past that it is read once more.
HELD_MAX = 1000
# Messages of one's own that are known again when they come in a range.
OWN_MAX = 4096
# Seconds of silence after which the server is asked for a sign of life, and those it has to answer.
SILENCE_SECONDS, ANSWER_SECONDS = 60, 30
# Longest pause between two attempts to connect, in seconds.
PAUSE_SECONDS_MAX = 30
# The state file is written at most this often, in seconds.
SAVE_SECONDS = 1

_HEADER = struct.Struct("<IBB")
_MESSAGE = struct.Struct("<QIqqB")
_CHAT_INFO = struct.Struct("<IBBIqqI")
EVENTS = (
    "message", "chat", "chat_gone", "member", "seen", "typing", "presence", "deauth", "reconnect",
)


class PurposeError(Exception):
    """What goes wrong here; the base of the others."""


class Declined(PurposeError):
    """The server said no: `code` is stable, `words` are for people."""

    def __init__(self, text):
        super().__init__(text)
        self.code, _, self.words = text.partition(": ")

    @property
    def number(self):
        """The one number of `rate-limited` (seconds) and of a range's `too-large` (a time)."""
        digits = "".join(c if c.isdigit() else " " for c in self.words).split()
        return int(digits[0]) if digits else None


class Disconnected(PurposeError, ConnectionError):
    """The connection broke, and the call was not one that is safe to repeat."""


class SessionEnded(PurposeError):
    """There is no session any more: it ended, or another connection took it over."""


class ProtocolError(PurposeError):
    """The server said what the protocol does not know."""


class Message(NamedTuple):
    """A message of a chat. Times are microseconds since the epoch, by the server's clock."""

    id: int
    sender: int
    created: int
    updated: int
    status: int
    content: str

    is_new = property(lambda self: self.status == 0)
    is_edited = property(lambda self: bool(self.status & 1))
    is_deleted = property(lambda self: bool(self.status & 2))


class ChatInfo(NamedTuple):
    """A chat as this user sees it; `seen` is its marker, 0 when it never moved."""

    id: int
    kind: int
    flags: int
    members: int
    last_message: int
    seen: int
    unread: int
    name: str
    title: str

    is_direct = property(lambda self: self.kind == 1)
    has_password = property(lambda self: bool(self.flags & 1))
    is_member = property(lambda self: bool(self.flags & 2))
    is_admin = property(lambda self: bool(self.flags & 4))


class Member(NamedTuple):
    """A member of a chat, or (to its admins) somebody who is banned."""

    user: int
    flags: int
    seen: int
    nickname: str

    is_admin = property(lambda self: bool(self.flags & 1))
    is_online = property(lambda self: bool(self.flags & 2))
    is_banned = property(lambda self: bool(self.flags & 4))


class User(NamedTuple):
    """A user."""

    id: int
    flags: int
    created: int
    nickname: str

    is_online = property(lambda self: bool(self.flags & 2))


class Session(NamedTuple):
    """One of the user's sessions."""

    id: int
    flags: int
    created: int
    used: int
    address: str

    is_this = property(lambda self: bool(self.flags & 1))
    is_attached = property(lambda self: bool(self.flags & 2))


class Sent(NamedTuple):
    """What a message got when it was stored."""

    id: int
    created: int


class Hello(NamedTuple):
    """What the server said about itself; the last three on API 1.0."""

    major: int
    minor: int
    max_body: int = 64 * 1024
    max_content: int = 16 * 1024
    server: str = ""


def frame(purpose, task, body=b""):
    """One frame as bytes."""
    return _HEADER.pack(len(body), purpose, task) + body


def text(value):
    """A str of the protocol."""
    encoded = value.encode()
    if b"\0" in encoded:
        raise ValueError("a str of the protocol holds no NUL")
    return encoded + b"\0"


class Reader:
    """Takes fields off the front of a body."""

    def __init__(self, body):
        self.body, self.at = body, 0

    def __bool__(self):
        return self.at < len(self.body)

    def unpack(self, fields):
        """Fields by a `struct.Struct`."""
        try:
            values = fields.unpack_from(self.body, self.at)
        except struct.error as error:
            raise ProtocolError("a body ends inside a field") from error
        self.at += fields.size
        return values

    def u8(self):
        return self.unpack(_U8)[0]

    def u32(self):
        return self.unpack(_U32)[0]

    def time(self):
        return self.unpack(_TIME)[0]

    def str(self):
        end = self.body.find(b"\0", self.at)
        if end < 0:
            raise ProtocolError("a str without its NUL")
        try:
            value = self.body[self.at : end].decode()
        except UnicodeDecodeError as error:
            raise ProtocolError("a str that is not UTF-8") from error
        self.at = end + 1
        return value

    def message(self):
        return Message(*self.unpack(_MESSAGE), self.str())

    def chat_info(self):
        return ChatInfo(*self.unpack(_CHAT_INFO), self.str(), self.str())

    def member(self):
        return Member(*self.unpack(_MEMBER), self.str())

    def session(self):
        return Session(*self.unpack(_SESSION), self.str())

    def chat_message(self):
        return self.u32(), self.message()

    def all(self, take):
        """A pack: `take` over and over, up to the end."""
        entries = []
        while self:
            entries.append(take(self))
        return entries


_U8, _U32, _TIME = struct.Struct("<B"), struct.Struct("<I"), struct.Struct("<q")
_U64, _SENT, _USER = struct.Struct("<Q"), struct.Struct("<Qq"), struct.Struct("<IBq")
_MEMBER, _SESSION = struct.Struct("<IBq"), struct.Struct("<IBqq")


class Link:
    """One connection as a stream of frames. Knows no session."""

    def __init__(self, address, tls, timeout, path=None):
        self.web = None
        self.buffer, self.at = bytearray(), 0
        self.last_byte = time.monotonic()
        self.timeout = timeout
        try:
            self.socket = socket.create_connection(address, timeout)
        except OSError as error:
            raise Disconnected(f"no connection to {address[0]}:{address[1]}: {error}") from error
        try:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls:
                self.socket = tls.wrap(self.socket, address[0])
            if path:
                self.web = WebSocket(self.socket, address, path, is_tls=bool(tls))
                self.buffer += self.web.unwrap(b"")
        except BaseException as error:
            self.socket.close()
            if isinstance(error, OSError) and not isinstance(error, ssl.SSLCertVerificationError):
                raise Disconnected(f"no TLS with {address[0]}:{address[1]}: {error}") from error
            raise

    def send(self, data):
        try:
            self.socket.settimeout(self.timeout)
            self.socket.sendall(self.web.wrap(data) if self.web else data)
        except OSError as error:
            self.close()
            raise Disconnected(f"the connection broke: {error}") from error

    def receive(self, deadline):
        """The next frame as (purpose, task, body); None when none came before the deadline."""
        while True:
            if len(self.buffer) - self.at >= _HEADER.size:
                length, purpose, task = _HEADER.unpack_from(self.buffer, self.at)
                if length > BODY_BYTES_MAX:
                    self.close()
                    raise ProtocolError("a frame longer than any answer")
                end = self.at + _HEADER.size + length
                if end <= len(self.buffer):
                    body = bytes(self.buffer[self.at + _HEADER.size : end])
                    self.at = end
                    return purpose, task, body
            if not self._fill(deadline):
                return None

    def _fill(self, deadline):
        del self.buffer[: self.at]
        self.at = 0
        # A moment is always given: bytes that have come are taken even when the deadline is past.
        self.socket.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            chunk = self.socket.recv(1 << 16)
        except socket.timeout:
            return False
        except OSError as error:
            self.close()
            raise Disconnected(f"the connection broke: {error}") from error
        if not chunk:
            self.close()
            raise Disconnected("the server ended the connection")
        self.last_byte = time.monotonic()
        if self.web:
            try:
                chunk = self.web.unwrap(chunk)
            except (OSError, ProtocolError):
                self.close()
                raise
            if self.web.is_over and not chunk:
                self.close()
                raise Disconnected("the server closed the WebSocket")
        self.buffer += chunk
        return True

    def close(self):
        self.socket.close()


class WebSocket:
    """The bytes of a connection as messages of a WebSocket (RFC 6455), through a proxy of HTTP."""

    BINARY, CLOSE, PING = 0x2, 0x8, 0x9

    def __init__(self, plain, address, path, is_tls):
        self.socket, self.raw, self.is_over = plain, bytearray(), False
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        if address[1] != (443 if is_tls else 80):
            host += f":{address[1]}"
        key = base64.b64encode(secrets.token_bytes(16))
        plain.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key.decode()}\r\n"
            "Sec-WebSocket-Protocol: purpose\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in self.raw:
            chunk = plain.recv(4096)
            if not chunk or len(self.raw) > 8192:
                raise Disconnected("no answer of HTTP")
            self.raw += chunk
        head, _, rest = bytes(self.raw).partition(b"\r\n\r\n")
        status = head.split(b"\r\n")[0].split(b" ")
        if status[:2] != [b"HTTP/1.1", b"101"]:
            raise Disconnected(f"no WebSocket there, but {b' '.join(status).decode('latin-1')}")
        suffix = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key + suffix).digest())
        lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
        values = {name.lower(): value.strip() for name, _, value in lines}
        if values.get(b"sec-websocket-accept") != accept:
            raise ProtocolError("a handshake that is none of WebSocket")
        self.raw = bytearray(rest)

    def wrap(self, data, opcode=BINARY):
        """Bytes as one masked frame."""
        size = len(data)
        if size < 126:
            head = struct.pack(">BB", 0x80 | opcode, 0x80 | size)
        elif size < 1 << 16:
            head = struct.pack(">BBH", 0x80 | opcode, 0xFE, size)
        else:
            head = struct.pack(">BBQ", 0x80 | opcode, 0xFF, size)
        mask = secrets.token_bytes(4)
        whole = (mask * (size // 4 + 1))[:size]
        masked = int.from_bytes(data, "big") ^ int.from_bytes(whole, "big")
        return head + mask + masked.to_bytes(size, "big")

    def unwrap(self, chunk):
        """The bytes of Purpose among those that came; answers pings, and notes a Close."""
        self.raw += chunk
        payload = bytearray()
        while not self.is_over and len(self.raw) >= 2:
            opcode, size, start = self.raw[0] & 0x0F, self.raw[1], 2
            if size > 127 or self.raw[0] & 0x70 or opcode not in (0, self.BINARY, 8, 9, 10):
                raise ProtocolError("a frame that is none of WebSocket")
            if size >= 126:
                start = 4 if size == 126 else 10
                if len(self.raw) < start:
                    break
                size = int.from_bytes(self.raw[2:start], "big")
            if size > BODY_BYTES_MAX:
                raise ProtocolError("a message longer than any answer")
            if len(self.raw) < start + size:
                break
            content = bytes(self.raw[start : start + size])
            del self.raw[: start + size]
            if opcode in (0, self.BINARY):
                payload += content
            elif opcode == self.PING:
                self.socket.sendall(self.wrap(content, 0xA))
            elif opcode == self.CLOSE:
                self.is_over = True
                self.close(content[:2])
        return bytes(payload)

    def close(self, code=b"\x03\xe8"):
        """Ends this side; the other may have ended already."""
        try:
            self.socket.sendall(self.wrap(code, self.CLOSE))
        except OSError:
            pass


class Tls:
    """How to know the server: by its certificate's SHA-256, or by who signed it."""

    def __init__(self, fingerprint=None, ca_file=None, server_name=None):
        self.pinned = fingerprint and bytes.fromhex(fingerprint.replace(":", ""))
        if self.pinned is not None and len(self.pinned) != 32:
            raise ValueError("a fingerprint is the SHA-256 of a certificate: 64 hex digits")
        self.server_name = server_name
        self.context = ssl.create_default_context(cafile=ca_file)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.pinned:
            # Nobody else vouches for a pinned certificate; `wrap` compares it itself.
            self.context.check_hostname = False
            self.context.verify_mode = ssl.CERT_NONE

    def wrap(self, plain, host):
        """The handshake; a certificate that is not the pinned one ends it before a byte is sent."""
        wrapped = self.context.wrap_socket(plain, server_hostname=self.server_name or host)
        if self.pinned:
            found = hashlib.sha256(wrapped.getpeercert(binary_form=True) or b"").digest()
            if not hmac.compare_digest(found, self.pinned):
                wrapped.close()
                raise ssl.SSLCertVerificationError("the certificate is not the pinned one")
        return wrapped


class _Pending:
    """A request that waits for its answer."""

    def __init__(self, task, on_part=None):
        self.task, self.on_part = task, on_part
        self.parts, self.is_done, self.error = [], False, None

    def body(self):
        return b"".join(self.parts)


def name_key(name):
    """A name as the server compares it: in NFC, lower-cased."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).lower())


class Client:
    """A connection to a server, and the session that outlives it.

    address      "host:port", "[::1]:port" or a pair; "ws://host/ws" or "wss://host/ws" goes through
                 a WebSocket, the second over TLS
    tls          speak TLS; so do fingerprint (as `vestnik cert fingerprint` prints it) and ca_file
    version      (1, 0) or (0, 1)
    timeout      seconds to connect, and from a request to its answer
    retry_seconds  seconds for which a broken connection is tried again; None: for ever, 0: never
    state_file   keeps the session and the cursors over a restart; see `start`
    queue_bytes  bound of what waits for the callbacks
    """

    def __init__(self, address, *, tls=False, fingerprint=None, ca_file=None, server_name=None,
                 version=(1, 0), timeout=60, retry_seconds=None, state_file=None,
                 queue_bytes=8 << 20):
        self._path = None
        if isinstance(address, str) and "://" in address:
            self._address, self._path, is_secure = _split_url(address)
            if (tls or fingerprint or ca_file) and not is_secure:
                raise ValueError("ws:// is not over TLS: write wss://")
            tls = is_secure
        elif isinstance(address, str):
            self._address = _split_address(address)
        else:
            self._address = tuple(address)
        uses_tls = tls or fingerprint or ca_file
        self._tls = Tls(fingerprint, ca_file, server_name) if uses_tls else None
        self.version = tuple(version)
        self._timeout, self._retry_seconds, self._queue_bytes = timeout, retry_seconds, queue_bytes
        self._state_file, self._saved = state_file, 0
        self._login = None
        self.user_id = None
        self._session = None
        # What is known of each chat: up to where it was handed over, and up to where it came.
        self._since, self._cursors, self._received = 0, {}, {}
        self._my_chats, self._chats_missed = set(), False
        self._handlers = {name: [] for name in EVENTS}
        self._own = collections.OrderedDict()
        self._queue, self._queued_bytes = collections.deque(), 0
        self._stopped = False
        self._notified_task = 0
        self._connect()

    # --- connection and session ---

    def _connect(self):
        self._pending, self._task = {}, 0
        # Chats of which something may be missing, and live messages of those that are being read.
        self._stale, self._reading, self._fits = set(), {}, {}
        self._ping = None
        self._link = Link(self._address, self._tls, self._timeout, self._path)
        fields = struct.Struct("<BB")
        body = Reader(self.request(HELLO, fields.pack(*self.version)))
        spoken = body.unpack(fields)
        if spoken != self.version:
            raise ProtocolError(f"the server answered HELLO with API {spoken[0]}.{spoken[1]}")
        self.server = Hello(*spoken, *((body.u32(), body.u32(), body.str()) if body else ()))

    @property
    def is_modern(self):
        """Whether API 1.0 is spoken."""
        return self.version >= (1, 0)

    def login(self, login, password):
        """Begins a session. Messages from now on are notified."""
        body = Reader(self.request(LOGIN, text(login) + text(password)))
        self._session, self._login = (body.u32(), body.str()), login
        before = self.user_id
        if self.is_modern:
            self.user_id = body.u32()
        else:
            self.user_id = Reader(self.request(GET_USER_ID, text(login))).u32()
        if before != self.user_id or not self._since:
            self._cursors.clear()
            self._received.clear()
            self._my_chats.clear()
            self._since = self._now()
        self._begin()

    def _now(self):
        """The server's time; API 0.1 has no way to ask for it."""
        if self.is_modern:
            sessions = Reader(self.request(GET_SESSIONS)).all(Reader.session)
            return next(session.created for session in sessions if session.is_this)
        return int(time.time() * 1_000_000)

    def restore(self, state):
        """Goes on with a session, and with what was notified of each chat: `state` as it was kept."""
        self._take_state(state)
        if not self._session:
            raise SessionEnded("the state holds no session")
        self._restore()
        self._begin()

    def _restore(self):
        session_id, session_hash = self._session
        body = self.request(RESTORE_SESSION, _U32.pack(session_id) + text(session_hash))
        if body:
            self.user_id = Reader(body).u32()

    def start(self, login, password):
        """Restores the session of the state file; logs in when there is none or it has ended.

        A state file belongs to one user: with that of another this raises `ValueError`."""
        try:
            with open(self._state_file, encoding="utf-8") as file:
                state = json.load(file)
            self._check_owner(state.get("login"), login)
            self.restore(state)
        except (FileNotFoundError, SessionEnded):
            self.login(login, password)
        except Declined as declined:
            if declined.code != "bad-session":
                raise
            self.login(login, password)
        self._login = login
        self.save()

    def _check_owner(self, owner, login):
        if owner is not None and name_key(owner) != name_key(login):
            raise ValueError(f"{self._state_file} holds the session of {owner}, not of {login}: "
                             "use another state file")

    def _begin(self):
        """A session is attached: whatever was missed in its chats is to be read."""
        self._chats_missed = False
        chats = set(self._my_chats)
        if self.is_modern:
            infos = Reader(self.request(GET_MY_CHATS)).all(Reader.chat_info)
            chats = {info.id for info in infos}
            for chat in self._my_chats - chats:
                self._chat_is_gone(chat)
            for info in infos:
                if info.id not in self._my_chats:
                    self._push(("chat", (info,)))
        self._my_chats = chats
        self._stale = set(chats)

    def logoff(self):
        """Ends the session."""
        self.request(LOGOFF)
        self._session = None
        self.save()

    def reconnect(self):
        """Makes the connection anew and restores the session, as often as `retry_seconds` allows."""
        self._link.close()
        session = self._session
        begun, pause = time.monotonic(), 0.05
        while True:
            try:
                self._connect()
                if session:
                    self._restore()
                    self._begin()
                self._push(("reconnect", ()))
                return
            except (Disconnected, Declined) as error:
                wait = pause * random.uniform(0.5, 1)
                if isinstance(error, Declined):
                    if error.code == "bad-session":
                        self._session = None
                        raise SessionEnded("the session has ended") from error
                    if error.code not in ("rate-limited", "storage-failed", "shutting-down"):
                        raise
                    wait = error.number or wait
                passed = time.monotonic() - begun
                if self._retry_seconds is not None and passed + wait > self._retry_seconds:
                    raise
                self._link.close()
                time.sleep(wait)
                pause = min(2 * pause, PAUSE_SECONDS_MAX)

    def close(self):
        """Says good-bye and ends the connection; the session lives on."""
        try:
            self._link.send(frame(DISCONNECT, 0))
        except Disconnected:
            pass  # nobody is left to say it to
        self._link.close()
        self.save()

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        self.close()

    # --- what is kept over a restart ---

    @property
    def state(self):
        """What `restore` takes: the session (a secret) and up to where each chat was notified."""
        return {
            "session": self._session, "login": self._login, "user_id": self.user_id,
            "since": self._since,
            "chats": sorted(self._my_chats),
            "cursors": {str(chat): time for chat, time in self._cursors.items()},
        }

    def _take_state(self, state):
        self._session = tuple(state["session"]) if state["session"] else None
        self.user_id, self._since = state["user_id"], state["since"]
        self._login = state.get("login")
        self._cursors = {int(chat): time for chat, time in state["cursors"].items()}
        self._received = dict(self._cursors)
        self._my_chats = set(state["chats"])

    def save(self):
        """Writes the state file, readable by its owner alone; all of it or nothing."""
        if not self._state_file:
            return
        new_file = f"{self._state_file}.new"
        try:
            os.unlink(new_file)
        except FileNotFoundError:
            pass
        with open(os.open(new_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(self.state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new_file, self._state_file)
        self._saved = time.monotonic()

    def watch(self, chat, since=0):
        """Delivers the messages of a chat that were changed from `since` on, too."""
        self._cursors[chat] = self._received[chat] = since - 1
        self._my_chats.add(chat)
        self._stale.add(chat)

    # --- requests ---

    def request(self, purpose, body=b"", on_part=None):
        """Asks and waits: the body of the answer, that of its PARTs in front. With `on_part` the
        pieces are handed over as they come instead; it must not make calls."""
        pending = self._ask(purpose, body, on_part)
        self._await(pending)
        return pending.body()

    def _ask(self, purpose, body=b"", on_part=None):
        while len(self._pending) >= 255:
            self._pump_or_give_up()
        while self._task in self._pending or self._task == 0:
            self._task = (self._task + 1) % 256
        pending = self._pending[self._task] = _Pending(self._task, on_part)
        self._link.send(frame(purpose, self._task, body))
        self._task = (self._task + 1) % 256
        return pending

    def _await(self, pending):
        while not pending.is_done:
            self._pump_or_give_up()
        if pending.error:
            raise pending.error

    def _pump_or_give_up(self):
        if not self._pump(time.monotonic() + self._timeout):
            self._link.close()
            raise Disconnected("the server does not answer")

    def _safe(self, purpose, body=b""):
        """As `request`, for what may be asked twice: over as many connections as it takes."""
        while True:
            try:
                return self.request(purpose, body)
            except Disconnected:
                if not self._session or self._retry_seconds == 0:
                    raise
                self.reconnect()

    def _pump(self, deadline):
        """Takes one frame to where it belongs. False when none came before the deadline."""
        received = self._link.receive(deadline)
        if not received:
            return False
        purpose, task, body = received
        if purpose in (ACCEPTED, DECLINED, PART):
            self._answered(purpose, task, body)
        elif purpose == HEARTBEAT:
            self._link.send(frame(ACCEPTED, task, body))
        elif purpose == DISCONNECT:
            self._link.close()
            raise Disconnected("the server closed the connection")
        else:
            self._take_notification(purpose, task, Reader(body))
        return True

    def _answered(self, purpose, task, body):
        pending = self._pending.get(task)
        if not pending:
            return
        if purpose == DECLINED:
            pending.error = Declined(Reader(body).str())
        elif pending.on_part:
            pending.on_part(body)
        else:
            pending.parts.append(body)
        if purpose != PART:
            pending.is_done = True
            del self._pending[task]

    # --- what comes unasked ---

    def on(self, event):
        """Makes a function the callback of an event: `@client.on("message")`.

        message(chat, message)   sent, edited or deleted, by others or by one's other connections
        chat(info)               it is mine (so is each when a session begins), or has changed
        chat_gone(chat)          it is mine no more
        member(chat, user, event, nickname)    1 joined, 2 left, 3 admin, 4 no admin, 5 banned
        seen(chat, user, time), typing(chat, user), presence(user, is_online)
        deauth()                 the session is gone
        reconnect()              the connection was lost and is back
        """
        if event not in self._handlers:
            raise ValueError(f"there is no event {event!r}")
        return lambda function: self._handlers[event].append(function) or function

    def _take_notification(self, purpose, task, body):
        if purpose != DEAUTH:
            self._notified_task = task
        if purpose == MSG_NOTIFY:
            chat = body.u32()
            for message in body.all(Reader.message):
                self._live_message(chat, message)
        elif purpose == DEAUTH:
            self._session = None
            self._push(("deauth", ()))
        elif purpose == CHAT_NOTIFY:
            info = body.chat_info()
            self._is_mine(info.id)
            self._push(("chat", (info,)))
        elif purpose == CHAT_GONE:
            self._chat_is_gone(body.u32())
        elif purpose == MEMBER_NOTIFY:
            self._push(("member", (body.u32(), body.u32(), body.u8(), body.str())))
        elif purpose == SEEN_NOTIFY:
            self._push(("seen", (body.u32(), body.u32(), body.time())))
        elif purpose == TYPING_NOTIFY:
            self._push(("typing", (body.u32(), body.u32())))
        elif purpose == PRESENCE_NOTIFY:
            self._push(("presence", (body.u32(), bool(body.u8()))))

    def _push(self, event):
        if self._queued_bytes <= self._queue_bytes:
            self._queue.append(event)
            self._queued_bytes += _event_bytes(event)
        elif event[0] in ("chat", "chat_gone"):
            # The list of chats is read again when there is room; the rest was an ephemeral event.
            self._chats_missed = True

    def _is_mine(self, chat):
        """A chat that was not known is read from when the session began."""
        if chat not in self._my_chats:
            self._my_chats.add(chat)
            self._cursors.setdefault(chat, self._since)
            self._stale.add(chat)

    def _chat_is_left(self, chat):
        # Its cursor stays, for the day it is joined again.
        self._reading.pop(chat, None)
        self._fits.pop(chat, None)
        self._stale.discard(chat)
        self._my_chats.discard(chat)

    def _chat_is_gone(self, chat):
        self._chat_is_left(chat)
        self._push(("chat_gone", (chat,)))

    def _live_message(self, chat, message):
        self._is_mine(chat)
        held = self._reading.get(chat)
        if held is None:
            self._queue_message(chat, message)
        elif len(held) < HELD_MAX:
            # It is notified after what is being read, which is older.
            held.append(message)
        else:
            self._stale.add(chat)

    def _queue_message(self, chat, message):
        """Keeps a message for the callbacks, unless it came before. When there is no room the
        chat is read again, from here, once there is."""
        if message.updated <= self._received.get(chat, self._since):
            return
        if message.is_new and self._own.pop(message.id, False):
            return
        if self._queued_bytes > self._queue_bytes:
            self._stale.add(chat)
        if chat in self._stale:
            return
        self._received[chat] = message.updated
        self._queue.append(("message", (chat, message)))
        self._queued_bytes += 128 + len(message.content)

    def _catch_up(self):
        """Reads on in the chats of which something may be missing."""
        asked = []
        for chat in sorted(self._stale)[:CATCH_UP_WINDOW]:
            self._stale.discard(chat)
            self._reading[chat] = []
            upto = self._fits.pop(chat, None)
            asked.append((chat, upto, self._ask_range(chat, upto)))
        for chat, upto, pending in asked:
            try:
                self._await(pending)
                if upto is not None:
                    self._stale.add(chat)
            except Declined as declined:
                self._range_declined(chat, declined)
            for message in self._reading.pop(chat, ()):
                self._queue_message(chat, message)

    def _ask_range(self, chat, upto):
        def take(part):
            for message in Reader(part).all(Reader.message):
                if chat in self._reading:
                    self._queue_message(chat, message)

        body = _U32.pack(chat) + _TIME.pack(self._received.get(chat, self._since) + 1)
        body += b"" if upto is None else _TIME.pack(upto)
        return self._ask(REQUEST_CHAT_MSG, body, take)

    def _range_declined(self, chat, declined):
        if declined.code == "too-large":
            # Only so much fits one answer of API 0.1; the rest is asked for after that.
            self._fits[chat] = declined.number
            self._stale.add(chat)
        elif declined.code in ("not-member", "no-such-chat"):
            self._chat_is_gone(chat)
        elif self._session:
            raise declined

    def poll(self, timeout=None):
        """Hands one event to the callbacks; waits up to `timeout` seconds for one. True if there
        was one. Raises `Disconnected` when the connection breaks (then `reconnect`), and
        `SessionEnded` when there is no session and nothing left to deliver."""
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        while not self._queue:
            if not self._session:
                raise SessionEnded("no session is attached")
            if self._chats_missed:
                self._begin()
            if self._stale:
                self._catch_up()
                continue
            patient_until = self._link.last_byte + SILENCE_SECONDS
            if self._ping:
                patient_until = self._ping[1]
            if self._pump(min(deadline, patient_until)):
                continue
            now = time.monotonic()
            if now >= patient_until:
                self._ask_for_life(now)
            if now >= deadline:
                return False
        self._dispatch()
        return True

    def _ask_for_life(self, now):
        """A connection can be dead without a word: asks, and gives up without an answer."""
        if self._ping and not self._ping[0].is_done:
            self._link.close()
            raise Disconnected("the server shows no sign of life")
        self._ping = None
        if now >= self._link.last_byte + SILENCE_SECONDS:
            self._ping = (self._ask(HEARTBEAT), now + ANSWER_SECONDS)

    def _dispatch(self):
        name, values = event = self._queue.popleft()
        self._queued_bytes -= _event_bytes(event)
        try:
            for handler in self._handlers.get(name, ()):
                handler(*values)
        except Disconnected:
            # It was not done with; it comes again when the connection is back.
            self._queue.appendleft(event)
            self._queued_bytes += _event_bytes(event)
            raise
        if name in ("message", "own"):
            chat, message = values
            self._cursors[chat] = max(message.updated, self._cursors.get(chat, 0))
        if time.monotonic() - self._saved >= SAVE_SECONDS:
            self.save()

    def run(self):
        """Delivers events until `stop` is called, over as many connections as it takes."""
        self._stopped = False
        while not self._stopped:
            try:
                self.poll(SILENCE_SECONDS)
            except Disconnected:
                if not self._session or self._retry_seconds == 0:
                    raise
                self.reconnect()
        self.save()

    def stop(self):
        """Makes `run` return; to be called from a callback."""
        self._stopped = True

    # --- purposes of API 0.1 ---

    def get_user_id(self, nickname):
        return Reader(self._safe(GET_USER_ID, text(nickname))).u32()

    def get_chat_id(self, name):
        return Reader(self._safe(GET_CHAT_ID, text(name))).u32()

    def chat_req_pass(self, chat):
        """Whether the chat asks for a password."""
        return bool(Reader(self._safe(CHAT_REQ_PASS, _U32.pack(chat))).u8())

    def join_chat(self, chat, password=None):
        """Becomes a member; True, or False when it was one."""
        body = _U32.pack(chat) + (b"" if password is None else text(password))
        joined = True
        try:
            self.request(JOIN_CHAT, body)
        except Declined as declined:
            if declined.code != "already-member":
                raise
            joined = False
        self._is_mine(chat)
        return joined

    def send_chat_msg(self, chat, content, nonce=None):
        """Sends a message: its id and time. On API 1.0 it is stored once however often the
        connection breaks; a `nonce` of one's own makes that so over a restart, too."""
        body = _U32.pack(chat) + text(content)
        if self.is_modern:
            body += _U64.pack(secrets.randbits(64) if nonce is None else nonce)
            answer = self._safe(SEND_CHAT_MSG, body)
        else:
            answer = self.request(SEND_CHAT_MSG, body)
        sent = Sent(*_SENT.unpack(answer))
        self._note_own(chat, sent)
        return sent

    send = send_chat_msg

    def _note_own(self, chat, sent):
        """The answer comes after all earlier messages of the chat, so it moves the cursor, too.
        In a chat that is yet to be read the message will come again, and is not news."""
        is_live = chat not in self._stale and chat not in self._reading
        if is_live and sent.created > self._received.get(chat, self._since):
            self._received[chat] = sent.created
            own = Message(sent.id, self.user_id, sent.created, sent.created, 0, "")
            self._queue.append(("own", (chat, own)))
            self._queued_bytes += _event_bytes(("own", (chat, own)))
        elif not is_live:
            self._own[sent.id] = True
            if len(self._own) > OWN_MAX:
                self._own.popitem(last=False)

    def request_chat_msg(self, chat, start=0, end=None):
        """The messages of a chat with start <= updated <= end, ascending by updated."""
        messages = []
        while True:
            times = _TIME.pack(start) + (b"" if end is None else _TIME.pack(end))
            try:
                pack = self._safe(REQUEST_CHAT_MSG, _U32.pack(chat) + times)
                return messages + Reader(pack).all(Reader.message)
            except Declined as declined:
                if declined.code != "too-large":
                    raise
                fits = declined.number
            times = _TIME.pack(start) + _TIME.pack(fits)
            pack = self._safe(REQUEST_CHAT_MSG, _U32.pack(chat) + times)
            messages += Reader(pack).all(Reader.message)
            start = fits + 1

    def mark_seen(self, chat, upto):
        self._safe(MARK_SEEN, _U32.pack(chat) + _TIME.pack(upto))

    def suspend(self):
        """Declines the notification that came last: from now on there are none, nor hardly
        anything else, until `resume`."""
        self._link.send(frame(DECLINED, self._notified_task, text("busy: not now")))

    def resume(self):
        """Makes a suspended session active again, and reads what was missed."""
        self._restore()
        self._begin()

    # --- purposes of API 1.0 ---

    def register_user(self, login, password, invite=None):
        """Makes an account: its user id. `login` comes after."""
        body = text(login) + text(password) + (b"" if invite is None else text(invite))
        return Reader(self.request(REGISTER_USER, body)).u32()

    def change_password(self, old, new):
        self.request(CHANGE_PASSWORD, text(old) + text(new))

    def get_user(self, user):
        body = Reader(self._safe(GET_USER, _U32.pack(user)))
        return User(*body.unpack(_USER), body.str())

    def get_sessions(self):
        return Reader(self._safe(GET_SESSIONS)).all(Reader.session)

    def end_session(self, session):
        self.request(END_SESSION, _U32.pack(session))

    def create_chat(self, name, password=None):
        body = text(name) + (b"" if password is None else text(password))
        chat = Reader(self.request(CREATE_CHAT, body)).u32()
        # Nothing of it can be missing yet.
        self._my_chats.add(chat)
        self._cursors.setdefault(chat, self._since)
        return chat

    def leave_chat(self, chat):
        self.request(LEAVE_CHAT, _U32.pack(chat))
        self._chat_is_left(chat)

    def start_chat(self, user):
        """The direct chat with a user."""
        chat = Reader(self._safe(START_CHAT, _U32.pack(user))).u32()
        self._is_mine(chat)
        return chat

    def delete_chat(self, chat):
        self.request(DELETE_CHAT, _U32.pack(chat))
        self._chat_is_left(chat)

    def rename_chat(self, chat, name):
        self._safe(RENAME_CHAT, _U32.pack(chat) + text(name))

    def set_chat_title(self, chat, title):
        self._safe(SET_CHAT_TITLE, _U32.pack(chat) + text(title))

    def set_chat_password(self, chat, password=None):
        """Without a password none is needed any more."""
        body = _U32.pack(chat) + (b"" if password is None else text(password))
        self._safe(SET_CHAT_PASSWORD, body)

    def set_chat_admin(self, chat, user, is_admin=True):
        self._safe(SET_CHAT_ADMIN, struct.pack("<II?", chat, user, is_admin))

    def set_chat_ban(self, chat, user, is_banned=True):
        self._safe(SET_CHAT_BAN, struct.pack("<II?", chat, user, is_banned))

    def get_chat(self, chat):
        return Reader(self._safe(GET_CHAT, _U32.pack(chat))).chat_info()

    def get_my_chats(self):
        return Reader(self._safe(GET_MY_CHATS)).all(Reader.chat_info)

    def get_members(self, chat):
        return Reader(self._safe(GET_MEMBERS, _U32.pack(chat))).all(Reader.member)

    def find_chats(self, prefix, limit=100):
        body = text(prefix) + struct.pack("<H", limit)
        return Reader(self._safe(FIND_CHATS, body)).all(Reader.chat_info)

    def edit_msg(self, chat, message, content):
        """Gives a message another text: the time of the edit."""
        body = struct.pack("<IQ", chat, message) + text(content)
        return Reader(self.request(EDIT_MSG, body)).time()

    def delete_msg(self, chat, message):
        """Empties a message: the time of its deletion."""
        return Reader(self.request(DELETE_MSG, struct.pack("<IQ", chat, message))).time()

    def request_chat_page(self, chat, before=0, limit=50):
        """The newest `limit` messages older than the message `before` (0: of all), ascending."""
        body = struct.pack("<IQH", chat, before, limit)
        return Reader(self._safe(REQUEST_CHAT_PAGE, body)).all(Reader.message)

    def search_msg(self, query, chat=0, limit=50):
        """Messages with all the words, best first, as (chat, message); chat 0: in all of mine."""
        body = struct.pack("<IH", chat, limit) + text(query)
        return Reader(self._safe(SEARCH_MSG, body)).all(Reader.chat_message)

    def request_updates(self, start):
        """What changed in all my chats from `start` on, as (chat, message)."""
        return Reader(self._safe(REQUEST_UPDATES, _TIME.pack(start))).all(Reader.chat_message)

    def typing(self, chat):
        self._safe(TYPING, _U32.pack(chat))


def _event_bytes(event):
    name, values = event
    return 128 + len(values[1].content) if name == "message" else 64


def _split_url(url):
    """The address, the path and whether it is over TLS, of the URL of a WebSocket."""
    scheme, _, rest = url.partition("://")
    if scheme.lower() not in ("ws", "wss"):
        raise ValueError(f"{url} is not the address of a WebSocket: ws:// or wss://")
    is_secure = scheme.lower() == "wss"
    authority, slash, path = rest.partition("/")
    has_port = ":" in authority.rpartition("]")[2]
    port = "" if has_port else ":443" if is_secure else ":80"
    return _split_address(authority + port), slash + path if path else "/ws", is_secure


def _split_address(address):
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"{address!r} is not host:port")
    return host.strip("[]"), int(port)
