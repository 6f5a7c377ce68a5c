"""One method per purpose, in the order of the protocol's tables."""

import secrets
import struct

from . import wire
from .errors import Declined, ProtocolError
from .events import EventBase
from .wire import Reader, text

_CHAT_MESSAGE = struct.Struct("<IQ")
_NEW_INVITE = struct.Struct("<?HHI")


def message_id(message):
    """The id of a message, given as an id or as a `Message`."""
    return message if isinstance(message, int) else message.id


def invite_code(text_or_link):
    """The code in an invite's link, such as `https://chat.example.org/#invite=CODE`."""
    return text_or_link.strip().rpartition("#invite=")[2]


class CallBase(EventBase):
    """All calls except those for the content of files."""

    # --- API 0.1 ---

    def get_user_id(self, nickname):
        return Reader(self._safe(wire.GET_USER_ID, text(nickname))).u32()

    def get_chat_id(self, name):
        return Reader(self._safe(wire.GET_CHAT_ID, text(name))).u32()

    def chat_req_pass(self, chat):
        """Returns whether joining the chat needs a password."""
        return bool(Reader(self._safe(wire.CHAT_REQ_PASS, wire.U32.pack(chat))).u8())

    def join_chat(self, chat, password=None):
        """Joins a chat. Returns True, or False for a member."""
        body = wire.U32.pack(chat) + (b"" if password is None else text(password))
        joined = True
        try:
            self.request(wire.JOIN_CHAT, body)
        except Declined as declined:
            if declined.code != "already-member":
                raise
            joined = False
        self._is_mine(chat)
        self._note_chat(chat)
        return joined

    def _send(self, chat, content, nonce, extras):
        body = wire.U32.pack(chat) + text(content)
        if self.is_modern:
            body += wire.U64.pack(secrets.randbits(64) if nonce is None else nonce) + extras
            answer = self._safe(wire.SEND_CHAT_MSG, body)
        else:
            answer = self.request(wire.SEND_CHAT_MSG, body)
        sent = Reader(answer).sent()
        self._note_own(chat, sent.id, sent.created, is_sent=True)
        return sent

    def request_chat_msg(self, chat, start=0, end=None):
        """Returns the messages of a chat with start <= updated <= end, ascending by updated."""
        messages = []
        while True:
            times = wire.TIME.pack(start) + (b"" if end is None else wire.TIME.pack(end))
            try:
                pack = self._safe(wire.REQUEST_CHAT_MSG, wire.U32.pack(chat) + times)
                return messages + self._reader(pack).all(Reader.message)
            except Declined as declined:
                if declined.code != "too-large":
                    raise
                fits, words = declined.number, declined.words
            if fits is None or not start <= fits <= (wire.TIME_MAX if end is None else end):
                raise ProtocolError(f"no range of the chat fits: {words}")
            times = wire.TIME.pack(start) + wire.TIME.pack(fits)
            pack = self._safe(wire.REQUEST_CHAT_MSG, wire.U32.pack(chat) + times)
            messages += self._reader(pack).all(Reader.message)
            start = fits + 1

    def mark_seen(self, chat, upto):
        """Moves the read marker to the time of a message."""
        self._safe(wire.MARK_SEEN, wire.U32.pack(chat) + wire.TIME.pack(upto))

    # --- API 1.0: accounts and sessions ---

    def register_user(self, login, password, invite=None):
        """Creates an account and returns the user id.

        `invite` is the code or link of an invite, if the server asks for one. Call `login`
        afterwards; the chat of the invite is then among the user's chats."""
        code = b"" if invite is None else text(invite_code(invite))
        return Reader(self.request(wire.REGISTER_USER, text(login) + text(password) + code)).u32()

    def change_password(self, old, new):
        """Changes the password; the user's other sessions end."""
        self.request(wire.CHANGE_PASSWORD, text(old) + text(new))

    def get_user(self, user):
        return Reader(self._safe(wire.GET_USER, wire.U32.pack(user))).user()

    def get_sessions(self):
        return Reader(self._safe(wire.GET_SESSIONS)).all(Reader.session)

    def end_session(self, session):
        self.request(wire.END_SESSION, wire.U32.pack(session))

    # --- API 1.0: chats ---

    def create_chat(self, name, password=None):
        """Creates a group; the creator is member and admin. Returns the chat id."""
        body = text(name) + (b"" if password is None else text(password))
        chat = Reader(self.request(wire.CREATE_CHAT, body)).u32()
        # A new chat needs no catch-up.
        self._my_chats.add(chat)
        self._cursors.setdefault(chat, self._since)
        self._note_chat(chat)
        return chat

    def leave_chat(self, chat):
        self.request(wire.LEAVE_CHAT, wire.U32.pack(chat))
        self._chat_is_left(chat)

    def start_chat(self, user):
        """Returns the direct chat with a user; creates it if there is none."""
        chat = Reader(self._safe(wire.START_CHAT, wire.U32.pack(user))).u32()
        self._is_mine(chat)
        self._note_chat(chat)
        return chat

    def delete_chat(self, chat):
        self.request(wire.DELETE_CHAT, wire.U32.pack(chat))
        self._chat_is_left(chat)

    def rename_chat(self, chat, name):
        self._safe(wire.RENAME_CHAT, wire.U32.pack(chat) + text(name))
        self._note_chat(chat)

    def set_chat_title(self, chat, title):
        self._safe(wire.SET_CHAT_TITLE, wire.U32.pack(chat) + text(title))
        self._note_chat(chat)

    def set_chat_password(self, chat, password=None):
        """Sets the password of a chat; without one, joining needs none."""
        body = wire.U32.pack(chat) + (b"" if password is None else text(password))
        self._safe(wire.SET_CHAT_PASSWORD, body)
        self._note_chat(chat)

    def set_chat_admin(self, chat, user, is_admin=True):
        connections = self._connections
        try:
            self._safe(wire.SET_CHAT_ADMIN, struct.pack("<II?", chat, user, is_admin))
        except Declined as declined:
            # Repeated after a break, by somebody who has given it up with the first request.
            is_done = user == self.user_id and not is_admin and declined.code == "forbidden"
            if not is_done or self._connections == connections:
                raise
        self._note_chat(chat)

    def set_chat_ban(self, chat, user, is_banned=True):
        """Bans a user, who is removed and cannot join again; or lifts the ban."""
        self._safe(wire.SET_CHAT_BAN, struct.pack("<II?", chat, user, is_banned))

    def get_chat(self, chat):
        return self._reader(self._safe(wire.GET_CHAT, wire.U32.pack(chat))).chat_info()

    def get_my_chats(self):
        return self._reader(self._safe(wire.GET_MY_CHATS)).all(Reader.chat_info)

    def get_members(self, chat):
        return Reader(self._safe(wire.GET_MEMBERS, wire.U32.pack(chat))).all(Reader.member)

    def find_chats(self, prefix, limit=100):
        """Returns group chats whose names begin with a prefix."""
        body = text(prefix) + wire.U16.pack(limit)
        return self._reader(self._safe(wire.FIND_CHATS, body)).all(Reader.chat_info)

    # --- API 1.0: messages ---

    def edit_msg(self, chat, message, content):
        """Replaces the text of a message. Returns the time of the edit."""
        body = _CHAT_MESSAGE.pack(chat, message_id(message)) + text(content)
        return self._changed(chat, message, self.request(wire.EDIT_MSG, body))

    def delete_msg(self, chat, message):
        """Deletes the content and the files of a message. Returns the time of the deletion."""
        body = _CHAT_MESSAGE.pack(chat, message_id(message))
        return self._changed(chat, message, self.request(wire.DELETE_MSG, body))

    def _changed(self, chat, message, answer):
        updated = Reader(answer).time()
        if self.has_files:
            self._note_own(chat, message_id(message), updated)
        elif self._handlers["changed"]:
            # Before API 1.1 the answer says nothing of the changes of others.
            self._enqueue(("changed", (chat, message_id(message))))
        return updated

    def request_chat_page(self, chat, message=0, limit=50, newer=False):
        """Returns a page: the newest `limit` messages before a message (0: before none), ascending.

        With `newer` (API 1.1): the oldest `limit` messages after it."""
        body = _CHAT_MESSAGE.pack(chat, message_id(message)) + wire.U16.pack(limit)
        body += b"\1" if newer else b""
        return self._reader(self._safe(wire.REQUEST_CHAT_PAGE, body)).all(Reader.message)

    def search_msg(self, query, chat=0, limit=50):
        """Returns messages that contain all words, best first, as (chat, message).

        Chat 0 searches all chats of the user."""
        body = struct.pack("<IH", chat, limit) + text(query)
        return self._reader(self._safe(wire.SEARCH_MSG, body)).all(Reader.chat_message)

    def request_updates(self, start):
        """Returns all changes in the user's chats since the time `start`, as (chat, message).

        They come chat after chat, ascending by `updated` within each."""
        body = wire.TIME.pack(start)
        return self._reader(self._safe(wire.REQUEST_UPDATES, body)).all(Reader.chat_message)

    def typing(self, chat):
        """Notifies the other members that the user is typing."""
        self._safe(wire.TYPING, wire.U32.pack(chat))

    # --- API 1.1: users and operators ---

    def find_users(self, prefix="", limit=100):
        """Returns users whose names begin with a prefix; disabled ones to operators only."""
        body = text(prefix) + wire.U16.pack(limit)
        return Reader(self._safe(wire.FIND_USERS, body)).all(Reader.user)

    def reset_password(self, user):
        """For operators: returns a code with which the user can set a password, and its expiry."""
        body = Reader(self.request(wire.RESET_PASSWORD, wire.U32.pack(user)))
        return wire.ResetCode(body.str(), body.time())

    def set_password(self, login, code, new):
        """Sets a new password with an operator's code, without a session. Returns the user id.

        All sessions of the user end; call `login` afterwards."""
        return Reader(self.request(wire.SET_PASSWORD, text(login) + text(code) + text(new))).u32()

    def set_user_disabled(self, user, is_disabled=True):
        """For operators: disables a user, whose sessions end; or enables the user again."""
        self._safe(wire.SET_USER_DISABLED, struct.pack("<I?", user, is_disabled))

    # --- API 1.1: chats ---

    def add_member(self, chat, user):
        """For admins: adds a user without any password. Returns False for a member."""
        try:
            self.request(wire.ADD_MEMBER, struct.pack("<II", chat, user))
        except Declined as declined:
            if declined.code != "already-member":
                raise
            return False
        return True

    def set_chat_closed(self, chat, is_closed=True):
        """For admins: closes a chat, so that it does not exist for users who are not members."""
        self._safe(wire.SET_CHAT_CLOSED, struct.pack("<I?", chat, is_closed))
        self._note_chat(chat)

    def set_chat_notify(self, chat, notify):
        """Sets which messages cause pushes: NOTIFY_EVERYTHING, NOTIFY_MENTIONS, NOTIFY_NOTHING."""
        self._safe(wire.SET_CHAT_NOTIFY, struct.pack("<IB", chat, notify))
        self._note_chat(chat)

    def subscribe_push(self, endpoint="", p256dh=b"", auth=b""):
        """Subscribes this session to pushes: the endpoint, and the keys as bytes (65 and 16).

        An empty endpoint ends the subscription."""
        self._safe(wire.SUBSCRIBE_PUSH, text(endpoint) + p256dh + auth)

    # --- API 1.1: reactions ---

    def react(self, chat, message, emoji, is_on=True):
        """Adds a reaction to a message, or removes it. Returns the time of the change.

        Repeating it changes nothing."""
        body = _CHAT_MESSAGE.pack(chat, message_id(message)) + wire.U8.pack(is_on) + text(emoji)
        return self._changed(chat, message, self._safe(wire.REACT, body))

    def get_reactions(self, chat, message):
        """Returns everybody who reacted to a message, as (user, emoji), in order."""
        body = Reader(self._safe(wire.GET_REACTIONS, _CHAT_MESSAGE.pack(chat, message_id(message))))
        return body.all(lambda entry: (entry.u32(), entry.str()))

    # --- API 1.1: invites ---

    def create_invite(self, chat=0, *, registers=False, uses=1, days=7):
        """Creates an invite into a chat, or one with which to register, or both. Returns its code.

        The first is for the chat's admins; one that registers is for operators, unless the server
        lets admins create it. The code cannot be fetched again."""
        return Reader(self.request(
            wire.CREATE_INVITE, _NEW_INVITE.pack(registers, uses, days, chat)
        )).str()

    def get_invites(self, chat=0):
        """Returns the valid invites of a chat, oldest first; 0: all, for operators."""
        return Reader(self._safe(wire.GET_INVITES, wire.U32.pack(chat))).all(Reader.invite)

    def end_invite(self, hint):
        """Ends the invite with this `Invite.hint`."""
        self.request(wire.END_INVITE, text(hint))

    def use_invite(self, code):
        """Joins the chat of an invite, by its code or link. Returns the chat id.

        If the answer is lost in a break and the invite is used up by then, the chat is known as the
        only one that is new; if others have added the user to chats meanwhile, `bad-invite` is
        raised, and `get_my_chats` has the chat."""
        body, connections = text(invite_code(code)), self._connections
        before = set(self._my_chats)
        try:
            chat = Reader(self._safe(wire.USE_INVITE, body)).u32()
        except Declined as declined:
            new = self._my_chats - before
            if declined.code != "bad-invite" or self._connections == connections or len(new) != 1:
                raise
            chat, = new
        self._is_mine(chat)
        self._note_chat(chat)
        return chat
