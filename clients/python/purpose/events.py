"""Events: notifications are delivered to callbacks, and gaps are read from the server."""

import collections
import time

from . import wire
from .errors import Declined, Disconnected, ProtocolError, SessionEnded
from .session import (
    ANSWER_SECONDS, CATCH_UP_WINDOW, FRESH_MAX, HELD_MAX, OWN_MAX, PAUSE_SECONDS_MAX, SAVE_SECONDS,
    SILENCE_SECONDS, SLICES_MAX, TRANSIENT, SessionBase,
)
from .wire import Reader

# Events that move the cursor of a chat.
_CHANGES = ("message", "reaction", "own")


class EventBase(SessionBase):
    """A session whose events are delivered to callbacks."""

    def on(self, event):
        """Registers a function as the callback of an event: `@client.on("message")`.

        message(chat, message)   a message was sent, edited, deleted or reacted to, by others or by
                                 the user's other connections; `message.is_new`: it was not
                                 delivered before
        reaction(chat, change)   a live `ReactionChange`; missed ones arrive as a message event
                                 with all reactions
        chat(info)               the user is a member of the chat (for each chat when the program
                                 begins), or the chat has changed: its name, title, flags or
                                 `notify`, by anybody; also while the client was offline
        chat_gone(chat)          the user is not a member any more
        member(chat, user, event, nickname)    1 joined, 2 left, 3 admin, 4 no admin, 5 banned
        seen(chat, user, time), typing(chat, user), presence(user, is_online)
        deauth()                 the session has ended
        reconnect()              the connection was lost and is restored
        own(chat, message, updated)    the id of a message that this client has sent, edited,
                                 deleted or reacted to, in order with the changes of others
        left(chat)               like chat_gone, also when this client has left or deleted the chat
        """
        if event not in self._handlers:
            raise ValueError(f"there is no event {event!r}")
        return lambda function: self._handlers[event].append(function) or function

    def _take_notification(self, purpose, task, body):
        if purpose != wire.DEAUTH:
            self._notified_task = task
        if purpose == wire.MSG_NOTIFY:
            chat = body.u32()
            for message in body.all(Reader.message):
                self._live_change(chat, message)
        elif purpose == wire.REACTION_NOTIFY:
            self._live_change(body.u32(), body.reaction_change())
        elif purpose == wire.DEAUTH:
            self._session = None
            self._push(("deauth", ()))
        elif purpose == wire.CHAT_NOTIFY:
            info = body.chat_info()
            self._is_mine(info.id)
            self._shown.pop(info.id, None)
            self._show_chat(info)
        elif purpose == wire.CHAT_GONE:
            self._chat_is_gone(body.u32())
        elif purpose == wire.MEMBER_NOTIFY:
            self._push(("member", (body.u32(), body.u32(), body.u8(), body.str())))
        elif purpose == wire.SEEN_NOTIFY:
            self._push(("seen", (body.u32(), body.u32(), body.time())))
        elif purpose == wire.TYPING_NOTIFY:
            self._push(("typing", (body.u32(), body.u32())))
        elif purpose == wire.PRESENCE_NOTIFY:
            self._push(("presence", (body.u32(), bool(body.u8()))))

    def _push(self, event):
        """Queues an ephemeral event, which is dropped when the queue is full."""
        if self._queued_bytes <= self._queue_bytes:
            self._enqueue(event)

    def _enqueue(self, event):
        self._queue.append(event)
        self._queued_bytes += _event_bytes(event)

    # --- which chats are mine ---

    def _is_stale(self, chat):
        """Marks a chat from which changes may be missing: it is read again from its cursor."""
        self._stale.add(chat)
        self._floors.setdefault(chat, self._received.get(chat, self._since))

    def _is_mine(self, chat):
        """Notes a chat of the user; an unknown one is read from the start of the session."""
        if chat not in self._my_chats:
            self._my_chats.add(chat)
            self._cursors.setdefault(chat, self._since)
            self._is_stale(chat)

    def _show_chat(self, info):
        """Queues the event `chat`, unless the callbacks know the chat as it is."""
        # A hash takes less memory than the texts.
        shown = hash(info._replace(members=0, last_message=0, seen=0, unread=0))
        if self._shown.get(info.id) == shown:
            return
        if self._queued_bytes > self._queue_bytes:
            # The list of chats is read again once there is capacity.
            self._chats_missed = True
            return
        self._shown[info.id] = shown
        self._enqueue(("chat", (info,)))

    def _note_chat(self, chat):
        """Notes that this client has changed a chat: the server notifies the others only."""
        if self.is_modern and self._handlers["chat"]:
            self._changed_chats.add(chat)

    def _read_changed_chat(self):
        chat = next(iter(self._changed_chats))
        try:
            info = self._reader(self.request(wire.GET_CHAT, wire.U32.pack(chat))).chat_info()
            if info.is_member:
                self._show_chat(info)
        except Declined as declined:
            if self._session and declined.code not in ("not-member", "no-such-chat"):
                raise
        self._changed_chats.discard(chat)

    def _chat_is_left(self, chat):
        was_mine = chat in self._my_chats
        self._reading.pop(chat, None)
        self._slices.pop(chat, None)
        self._shown.pop(chat, None)
        self._changed_chats.discard(chat)
        self._floors.pop(chat, None)
        self._fresh.pop(chat, None)
        self._stale.discard(chat)
        self._my_chats.discard(chat)
        if self._from_start:
            self._cursors.pop(chat, None)
            self._received.pop(chat, None)
            self._known_upto.pop(chat, None)
        # Otherwise its cursor stays, in case the chat is joined again.
        if was_mine:
            self._enqueue(("left", (chat,)))

    def _chat_is_gone(self, chat):
        was_mine = chat in self._my_chats
        self._chat_is_left(chat)
        if was_mine:
            self._enqueue(("chat_gone", (chat,)))

    # --- changes of messages ---

    def _live_change(self, chat, change):
        self._is_mine(chat)
        held = self._reading.get(chat)
        if held is None:
            self._queue_change(chat, change)
        elif len(held) < HELD_MAX:
            # It is delivered after the changes that are being read, which are older.
            held.append(change)
        else:
            self._is_stale(chat)

    def _queue_change(self, chat, change):
        """Queues a change for the callbacks, unless it was delivered before.

        If the queue is full, the chat is read again from this change once there is capacity."""
        received = self._received.get(chat, self._since)
        if change.updated <= received:
            return
        if self._queued_bytes > self._queue_bytes:
            self._is_stale(chat)
        if chat in self._stale:
            return
        name = "reaction"
        if isinstance(change, wire.Message):
            name, change = self._known(chat, change, received)
        self._received[chat] = change.updated
        values = (change.id, change.updated) if name == "own" else (change,)
        self._enqueue((name, (chat, *values)))

    def _known(self, chat, message, received):
        """The name of the event for a message, and the message with `is_new` set."""
        if message.updated <= self._known_upto.get(chat, -1):
            return "known", message
        is_first = self._is_first(chat, message, received)
        if self._own.pop(message.id, False):
            if message.created == message.updated:
                return "own", message
            is_first = False
        return "message", message._replace(is_new=is_first and not message.is_deleted)

    def _is_first(self, chat, message, received):
        """Whether a message is delivered for the first time.

        During catch-up, messages do not arrive in the order in which they were sent."""
        floor = self._floors.get(chat)
        if floor is None:
            return message.created > received
        fresh = self._fresh.setdefault(chat, set())
        if len(fresh) >= FRESH_MAX:
            return message.created > received
        is_first = message.created > floor and message.id not in fresh
        fresh.add(message.id)
        return is_first

    def _note_own(self, chat, message, updated, is_sent=False):
        """Notes that a change by this client was accepted.

        The answer comes after all earlier changes of the chat, so it moves the cursor as well. If
        the chat still has to be read, the message will arrive again and is then not new."""
        is_live = chat not in self._stale and chat not in self._reading
        if is_live and updated > self._received.get(chat, self._since):
            self._received[chat] = updated
            self._enqueue(("own", (chat, message, updated)))
        elif not is_live and is_sent:
            self._own[message] = True
            if len(self._own) > OWN_MAX:
                self._own.popitem(last=False)

    # --- catching up ---

    def _catch_up(self):
        """Continues to read chats from which changes may be missing."""
        asked, expected_bytes = [], 0
        for chat in sorted(self._stale):
            slices = self._slices.setdefault(chat, collections.deque())
            upto, size = slices[0] if slices else (None, 0)
            expected_bytes += size
            has_room = len(asked) < CATCH_UP_WINDOW and expected_bytes <= self._queue_bytes
            if asked and not has_room:
                break
            if slices:
                slices.popleft()
            self._stale.discard(chat)
            self._reading[chat] = []
            rest = []
            asked.append((chat, upto, rest, self._ask_range(chat, upto, rest)))
        try:
            self._take_ranges(asked)
        except BaseException:
            # What has not been read is still missing.
            for chat, *_ in asked:
                if self._reading.pop(chat, None) is not None:
                    self._is_stale(chat)
            raise

    def _take_ranges(self, asked):
        """Waits for the ranges of several chats."""
        for chat, upto, rest, pending in asked:
            try:
                self._await(pending)
                self._plan(chat, upto, rest)
            except Declined as declined:
                self._range_declined(chat, upto, declined)
            for change in self._reading.pop(chat, ()):
                self._queue_change(chat, change)
            if chat not in self._stale:
                self._floors.pop(chat, None)
                self._fresh.pop(chat, None)
                self._slices.pop(chat, None)

    def _ask_range(self, chat, upto, rest):
        def take(part):
            for message in self._reader(part).all(Reader.message):
                if chat in self._reading:
                    self._queue_change(chat, message)
                    if chat in self._stale:
                        self._note_rest(rest, message)

        since = min(self._received.get(chat, self._since) + 1, wire.TIME_MAX)
        body = wire.U32.pack(chat) + wire.TIME.pack(since)
        body += b"" if upto is None else wire.TIME.pack(upto)
        return self._ask(wire.REQUEST_CHAT_MSG, body, take)

    def _note_rest(self, rest, message):
        """Notes a message for which the queue is full, in slices that each fit the queue.

        So the rest of a long range is read once more, and not again and again."""
        size = _event_bytes(("message", (0, message)))
        if not rest or (rest[-1][1] + size > self._queue_bytes and len(rest) < SLICES_MAX):
            rest.append((message.updated, size))
        else:
            rest[-1] = (message.updated, rest[-1][1] + size)

    def _plan(self, chat, upto, rest):
        """Notes what of a chat is to be read after a range up to a time (None: without end)."""
        slices = self._slices.get(chat)
        if slices is None:
            return  # the chat was left meanwhile
        if rest:
            rest[-1] = (upto, rest[-1][1])
            slices.extendleft(reversed(rest))
        if upto is not None or slices:
            self._is_stale(chat)

    def _range_declined(self, chat, upto, declined):
        if declined.code == "too-large":
            # An answer of API 0.1 holds no more; the rest is requested after it.
            fits = declined.number
            received = self._received.get(chat, self._since)
            if fits is None or not received < fits <= (upto or wire.TIME_MAX):
                raise ProtocolError(f"no range of the chat fits: {declined}") from declined
            if chat in self._slices:
                self._slices[chat].appendleft((fits, 0))
                self._is_stale(chat)
        elif declined.code in ("not-member", "no-such-chat"):
            self._chat_is_gone(chat)
        elif self._session:
            raise declined

    # --- delivering ---

    def poll(self, timeout=None):
        """Delivers one event to the callbacks; waits up to `timeout` seconds for one.

        Returns whether there was one. Raises `Disconnected` when the connection breaks (then call
        `reconnect`), and `SessionEnded` when there is no session and no event left."""
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        while not self._queue:
            if not self._session:
                raise SessionEnded("no session is attached")
            if self._chats_missed or self._changed_chats or self._stale:
                self._read_missed()
                continue
            silent_until = self._link.last_byte + SILENCE_SECONDS
            if self._ping:
                silent_until = self._ping[1]
            save_at = self._saved + SAVE_SECONDS if self._is_unsaved else float("inf")
            if self._pump(min(deadline, silent_until, save_at)):
                continue
            self._save_in_time()
            now = time.monotonic()
            if now >= silent_until:
                self._ask_for_life(now)
            if now >= deadline:
                return False
        self._dispatch()
        return True

    def _read_missed(self):
        """Reads from the server what the callbacks do not know."""
        try:
            if self._chats_missed:
                self._begin()
            elif self._changed_chats:
                self._read_changed_chat()
            else:
                self._catch_up()
        except Declined as declined:
            if declined.code not in TRANSIENT:
                raise
            # It is read after a reconnect, which waits longer each time.
            self._link.close()
            raise Disconnected(f"the server cannot be read: {declined}") from declined

    def _ask_for_life(self, now):
        """Detects a dead connection: sends HEARTBEAT, and gives up without an answer."""
        if self._ping and not self._ping[0].is_done:
            self._link.close()
            raise Disconnected("the server shows no sign of life")
        self._ping = None
        if now >= self._link.last_byte + SILENCE_SECONDS:
            self._ping = (self._ask(wire.HEARTBEAT), now + ANSWER_SECONDS)

    def _dispatch(self):
        name, values = event = self._queue.popleft()
        self._queued_bytes -= _event_bytes(event)
        handlers = self._handlers[name]
        failed, at = self._failed
        at = at if failed is event else 0
        try:
            while at < len(handlers):
                handlers[at](*values)
                at += 1
        except Disconnected:
            # This callback failed: it and those after it are called again after the reconnect.
            self._failed = (event, at)
            self._queue.appendleft(event)
            self._queued_bytes += _event_bytes(event)
            raise
        self._failed = (None, 0)
        if name in _CHANGES:
            self._breaks = 0
            chat, updated = values[0], values[-1] if name == "own" else values[1].updated
            self._cursors[chat] = max(updated, self._cursors.get(chat, 0))
            self._is_unsaved = True
        self._save_in_time()

    def _save_in_time(self):
        if self._is_unsaved and time.monotonic() >= self._saved + SAVE_SECONDS:
            self.save()

    def run(self):
        """Delivers events until `stop` is called, and reconnects as needed."""
        self._stopped, mended_at = False, time.monotonic()
        while not self._stopped:
            try:
                self.poll(SILENCE_SECONDS)
            except Disconnected as broken:
                is_lasting = time.monotonic() > mended_at + PAUSE_SECONDS_MAX
                self._breaks = 1 if is_lasting else self._breaks + 1
                self._mend(broken, self._breaks)
                mended_at = time.monotonic()
        self.save()

    def stop(self):
        """Makes `run` return; call it from a callback."""
        self._stopped = True

    def suspend(self):
        """Suspends the session by declining the last notification: until `resume` there are no
        notifications, and hardly any request is accepted."""
        reason = wire.text("busy: not now")
        self._link.send(wire.frame(wire.DECLINED, self._notified_task, reason))

    def resume(self):
        """Makes a suspended session active again, and reads what was missed."""
        self._restore()
        self._begin()


def _event_bytes(event):
    """Approximate memory of a queued event."""
    name, values = event
    if name in ("message", "known"):
        message = values[1]
        extras = 400 * len(message.files) + sum(100 + 8 * len(r.users) for r in message.reactions)
        return 128 + len(message.content) + extras
    # Texts are short, but for those of a server that breaks the rules.
    fields = values[0] if name == "chat" else values[1] if name == "reaction" else values
    return 128 + sum(len(field) for field in fields if isinstance(field, str))
