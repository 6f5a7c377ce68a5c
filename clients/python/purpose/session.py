"""The session of a client: connections, requests and answers, and events without gaps.

Each chat has a cursor: the time up to which everything was delivered. After a break the chat is
read from its cursor, and live changes wait until that is done.
"""

import collections
import json
import os
import random
import time
import unicodedata

from . import wire
from .errors import Declined, Disconnected, ProtocolError, SessionEnded
from .transport import Link, Tls, split_address, split_url
from .wire import Reader, frame, text

# Ranges requested at once during the catch-up of many chats.
CATCH_UP_WINDOW = 32
# Live changes of one chat that wait during its catch-up; beyond them it is read once more.
HELD_MAX = 1000
# Own messages that are remembered, to match them in a range.
OWN_MAX = 4096
# Slices into which a range is divided that does not fit the queue.
SLICES_MAX = 10_000
# Ids of messages remembered during the catch-up of a chat, to know which are new.
FRESH_MAX = 100_000
# Seconds of silence before HEARTBEAT is sent, and seconds for its answer.
SILENCE_SECONDS, ANSWER_SECONDS = 60, 30
# Longest pause between two attempts to connect, in seconds, and longest one that a server sets.
PAUSE_SECONDS_MAX, LIMITED_SECONDS_MAX = 30, 300
# Reasons that pass by themselves.
TRANSIENT = ("rate-limited", "storage-failed", "shutting-down")
# Breaks of one request after which it is not repeated any more, and those without a pause.
BREAKS_MAX, BREAKS_AT_ONCE = 12, 3
# The state file is written at most this often, in seconds.
SAVE_SECONDS = 1

# The last two are for `ChatCopy`: messages that the callbacks know, and changes by this client that
# come in no order with others.
EVENTS = (
    "message", "reaction", "chat", "chat_gone", "member", "seen", "typing", "presence", "deauth",
    "reconnect", "own", "left", "known", "changed",
)


class Pending:
    """A request that waits for its answer."""

    def __init__(self, task, purpose, on_part=None):
        self.task, self.purpose, self.on_part = task, purpose, on_part
        self.parts, self.part_bytes, self.is_done, self.error = [], 0, False, None

    def body(self):
        return b"".join(self.parts)


def name_key(name):
    """A name in the form in which the server compares it: NFC, lower case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).lower())


class SessionBase:
    """`Client` without the calls for the purposes; `Client` documents the parameters."""

    def __init__(self, address, *, tls=False, fingerprint=None, ca_file=None, server_name=None,
                 version=wire.API_1_1, timeout=60, retry_seconds=None, state_file=None,
                 queue_bytes=8 << 20, answer_bytes=256 << 20, from_start=False, source=None):
        self._path, self._source = None, source
        if isinstance(address, str) and "://" in address:
            self._address, self._path, is_secure = split_url(address)
            if (tls or fingerprint or ca_file) and not is_secure:
                raise ValueError("ws:// is not over TLS: write wss://")
            tls = is_secure
        elif isinstance(address, str):
            self._address = split_address(address)
        else:
            self._address = tuple(address)
        uses_tls = tls or fingerprint or ca_file
        self._tls = Tls(fingerprint, ca_file, server_name) if uses_tls else None
        self.version, self.server = tuple(version), None
        self._timeout, self._retry_seconds = timeout, retry_seconds
        self._queue_bytes, self._answer_bytes = queue_bytes, answer_bytes
        self._state_file, self._saved, self._is_unsaved = state_file, 0, False
        self._from_start = from_start
        self._login, self._session = None, None
        self.user_id, self.user_flags = None, 0
        # Cursors of each chat: up to which time changes were delivered, and were received.
        self._since, self._cursors, self._received = 0, {}, {}
        self._my_chats, self._chats_missed = set(), False
        # Whether there was a session; whether a `ChatCopy` needs all messages, and up to which time
        # an earlier process has delivered them.
        self._has_begun, self._has_copy, self._known_upto = False, False, {}
        # Hashes of the chats as the callbacks know them, and those that this client has changed.
        self._shown, self._changed_chats = {}, set()
        # Chats in catch-up: the start of the range, and live changes since.
        self._floors, self._fresh = {}, {}
        self._handlers = {name: [] for name in EVENTS}
        self._own = collections.OrderedDict()
        self._queue, self._queued_bytes = collections.deque(), 0
        # The event of which a callback failed, and the index of that callback.
        self._failed = (None, 0)
        self._stopped = False
        self._notified_task = 0
        # Connections so far, and breaks since the last change that was delivered.
        self._connections, self._breaks = 0, 0
        self._connect()

    # --- connection and session ---

    def _connect(self):
        self._connections, self._is_closed = self._connections + 1, False
        self._pending, self._task, self._answered_at = {}, 0, 0
        # Chats from which changes may be missing, and live changes of those being read.
        self._stale, self._reading, self._slices = set(), {}, {}
        self._ping = None
        self._link = Link(self._address, self._tls, self._timeout, self._path, self._source)
        try:
            hello = Reader(self.request(wire.HELLO, bytes(self.version))).hello()
            if hello.major != self.version[0] or hello.version > self.version:
                version = f"{hello.major}.{hello.minor}"
                raise ProtocolError(f"the server answered HELLO with API {version}")
        except BaseException:
            self._link.close()
            raise
        self.server = hello

    @property
    def is_modern(self):
        """Whether the connection uses API 1.0 or newer."""
        return self.server.version >= wire.API_1_0

    @property
    def has_files(self):
        """Whether the connection uses API 1.1: files, replies, reactions and more."""
        return self.server.version >= wire.API_1_1

    @property
    def is_operator(self):
        """Whether the user is an operator of the server; known on API 1.1 only."""
        return bool(self.user_flags & 1)

    def login(self, login, password):
        """Begins a session. Messages from now on are delivered."""
        self._all_are_stale()
        body = self._reader(self.request(wire.LOGIN, text(login) + text(password)))
        self._session, self._login = (body.u32(), body.str()), login
        before = self.user_id
        if self.is_modern:
            self._take_user(body)
        else:
            self.user_id = Reader(self.request(wire.GET_USER_ID, text(login))).u32()
        if before != self.user_id or not self._has_begun:
            self._shown.clear()
            self._known_upto.clear()
            self._cursors.clear()
            self._received.clear()
            self._my_chats.clear()
            self._stale.clear()
            self._floors.clear()
            self._since = 0 if self._from_start else self._now()
            self._has_begun = True
        self._begin()

    def _take_user(self, body):
        self.user_id = body.u32()
        if self.has_files:
            self.user_flags = body.u8()

    def _now(self):
        """The present server time, from GET_SESSIONS; on API 0.1 the local clock."""
        if self.is_modern:
            sessions = Reader(self.request(wire.GET_SESSIONS)).all(Reader.session)
            for session in sessions:
                if session.is_this:
                    return session.created
            raise ProtocolError("GET_SESSIONS does not have the session in use")
        return int(time.time() * 1_000_000)

    def restore(self, state):
        """Restores a session and its cursors from a saved `state`."""
        self._take_state(state)
        if not self._session:
            raise SessionEnded("the state holds no session")
        self._restore()
        self._begin()

    def _restore(self):
        self._all_are_stale()
        session_id, session_hash = self._session
        request = wire.U32.pack(session_id) + text(session_hash)
        body = self._reader(self.request(wire.RESTORE_SESSION, request))
        if body:
            self._take_user(body)

    def start(self, login, password):
        """Restores the session of the state file; logs in if there is none or it has ended.

        A state file belongs to one user; that of another raises `ValueError`."""
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

    def _all_are_stale(self):
        """Marks all chats before a session is attached: notifications that come before catch-up
        begins must not move cursors past what was missed."""
        for chat in self._my_chats:
            self._is_stale(chat)

    def _begin(self):
        """Starts catch-up after a session was attached."""
        chats = set(self._my_chats)
        if self.is_modern:
            infos = self._reader(self.request(wire.GET_MY_CHATS)).all(Reader.chat_info)
            chats = {info.id for info in infos}
            for chat in self._my_chats - chats:
                self._chat_is_gone(chat)
            self._changed_chats.clear()
            self._chats_missed = False
            for info in infos:
                self._show_chat(info)
        self._my_chats = chats
        for chat in chats:
            self._is_stale(chat)

    def logoff(self):
        """Ends the session."""
        self.request(wire.LOGOFF)
        self._session = None
        self.save()

    def reconnect(self):
        """Connects again and restores the session; retries for `retry_seconds`."""
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
                    if error.code not in TRANSIENT:
                        raise
                    wait = min(error.number or wait, LIMITED_SECONDS_MAX)
                passed = time.monotonic() - begun
                if self._retry_seconds is not None and passed + wait > self._retry_seconds:
                    raise
                self._link.close()
                time.sleep(wait)
                pause = min(2 * pause, PAUSE_SECONDS_MAX)

    def _mend(self, broken, breaks=1):
        """Handles a break during an idempotent call: reconnects, or raises the error.

        `breaks` is how many there were in a row: each new connection may break as well."""
        if not self._session or self._retry_seconds == 0 or self._is_closed:
            raise broken
        if breaks > BREAKS_AT_ONCE:
            pause = min(0.1 * 2 ** (breaks - BREAKS_AT_ONCE), PAUSE_SECONDS_MAX)
            if self._retry_seconds is not None:
                pause = min(pause, self._retry_seconds)
            time.sleep(pause * random.uniform(0.5, 1))
        self.reconnect()

    def _mend_request(self, broken, breaks):
        """Like `_mend`, for a request that may be what breaks the connections."""
        if breaks >= BREAKS_MAX:
            raise ProtocolError(f"{breaks} connections broke during one request: {broken}") \
                from broken
        self._mend(broken, breaks)

    def close(self):
        """Sends DISCONNECT and closes the connection.

        The session stays valid: `reconnect` restores it. Until then calls raise `Disconnected`."""
        self._is_closed = True
        try:
            self._link.send(frame(wire.DISCONNECT, 0))
        except Disconnected:
            pass  # nobody is left to say it to
        self._link.close()
        self.save()

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        self.close()

    def fileno(self):
        """File descriptor of the socket, for `select`.

        Call `poll(0)` until it returns False when the socket is readable, once after `login` or
        `start`, and after every other call: a call reads the events that come before its answer.
        The descriptor changes with a `reconnect` event."""
        return self._link.fileno()

    # --- what is kept over a restart ---

    @property
    def state(self):
        """The session (a secret) and the cursors of all chats, as `restore` accepts them."""
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
        self._has_begun = self.user_id is not None
        if self._has_copy:
            # Everything is read again, for the copy; the callbacks know the messages up to here.
            known = {chat: self._since for chat in self._my_chats}
            self._known_upto = {**known, **self._cursors}
            self._cursors, self._floors = dict(self._known_upto), dict(self._known_upto)
            self._since, self._received = 0, {}

    def save(self):
        """Writes the state file atomically, readable by its owner only."""
        self._is_unsaved = False
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
        """Also delivers the changes of a chat since the time `since`."""
        self._cursors[chat] = self._received[chat] = since - 1
        self._floors.pop(chat, None)
        self._my_chats.add(chat)
        self._is_stale(chat)

    # --- requests ---

    def _reader(self, body):
        return Reader(body, self.server.version)

    def request(self, purpose, body=b"", on_part=None):
        """Sends a request and waits. Returns the answer's body, after those of its PARTs.

        With `on_part` the bodies are passed to it as they arrive; it must not make calls."""
        pending = self._ask(purpose, body, on_part)
        self._await(pending)
        return pending.body()

    def _ask(self, purpose, body=b"", on_part=None):
        limit = self.server.max_body if self.server else wire.BODY_BYTES_MAX
        if len(body) > limit:
            # The server would close the connection.
            raise Declined(f"too-large: a body has at most {limit} bytes")
        if len(self._pending) >= 255:
            self._wait_for(next(iter(self._pending.values())))
        while self._task in self._pending or self._task == 0:
            self._task = (self._task + 1) % 256
        pending = self._pending[self._task] = Pending(self._task, purpose, on_part)
        self._link.send(frame(purpose, self._task, body))
        self._task = (self._task + 1) % 256
        return pending

    def _await(self, pending):
        self._wait_for(pending)
        if pending.error:
            raise pending.error

    def _wait_for(self, pending):
        """Waits for an answer. Gives up when for `timeout` seconds nothing of an answer came.

        Answers come in the order of the requests, so those of earlier ones count; notifications
        do not."""
        self._answered_at = time.monotonic()
        while not pending.is_done:
            is_received = self._pump(self._answered_at + self._timeout)
            is_late = time.monotonic() > self._answered_at + self._timeout
            if not is_received or (is_late and not pending.is_done):
                self._link.close()
                raise Disconnected("the server does not answer")

    def _safe(self, purpose, body=b""):
        """Like `request`, for idempotent requests: repeats it after a break."""
        breaks = 0
        while True:
            try:
                return self.request(purpose, body)
            except Disconnected as broken:
                breaks += 1
                self._mend_request(broken, breaks)

    def _pump(self, deadline):
        """Receives and dispatches one frame. False when none arrived before the deadline."""
        received = self._link.receive(deadline)
        if not received:
            return False
        purpose, task, body = received
        if purpose in (wire.ACCEPTED, wire.DECLINED, wire.PART):
            self._answered(purpose, task, body)
        elif purpose == wire.HEARTBEAT:
            self._link.send(frame(wire.ACCEPTED, task, body))
        elif purpose == wire.DISCONNECT:
            self._link.close()
            raise Disconnected("the server closed the connection")
        else:
            self._take_notification(purpose, task, self._reader(body))
        return True

    def _answered(self, purpose, task, body):
        pending = self._pending.get(task)
        if not pending:
            return
        if purpose == wire.PART and pending.purpose not in wire.PACKS:
            self._link.close()
            raise ProtocolError("a PART of an answer that has none")
        if body or purpose != wire.PART:
            self._answered_at = time.monotonic()
        if purpose == wire.DECLINED:
            pending.error = Declined(Reader(body).str())
        elif pending.on_part:
            pending.on_part(body)
        else:
            pending.part_bytes += len(body)
            if pending.part_bytes > self._answer_bytes:
                self._link.close()
                raise ProtocolError(f"an answer of more than {self._answer_bytes} bytes: request "
                                    "a shorter range, or set answer_bytes")
            pending.parts.append(body)
        if purpose != wire.PART:
            pending.is_done = True
            del self._pending[task]
