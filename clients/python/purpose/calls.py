"""A method for each purpose, in the order of the protocol's tables."""

import secrets
import struct

from . import wire
from .errors import Declined
from .events import EventBase
from .wire import Reader, text

_CHAT_MESSAGE = struct.Struct("<IQ")
_NEW_INVITE = struct.Struct("<?HHI")


def message_id(message):
    """The id of a message that is given as its id, or whole."""
    return message if isinstance(message, int) else message.id


def invite_code(text_or_link):
    """The code in the link of an invite, such as `https://chat.example.org/#invite=CODE`."""
    return text_or_link.strip().rpartition("#invite=")[2]


class CallBase(EventBase):
    """The purposes that change or ask for anything but the bytes of files."""

    # --- API 0.1 ---

    def get_user_id(self, nickname):
        return Reader(self._safe(wire.GET_USER_ID, text(nickname))).u32()

    def get_chat_id(self, name):
        return Reader(self._safe(wire.GET_CHAT_ID, text(name))).u32()

    def chat_req_pass(self, chat):
        """Whether the chat asks for a password."""
        return bool(Reader(self._safe(wire.CHAT_REQ_PASS, wire.U32.pack(chat))).u8())

    def join_chat(self, chat, password=None):
        """Becomes a member; True, or False when it was one."""
        body = wire.U32.pack(chat) + (b"" if password is None else text(password))
        joined = True
        try:
            self.request(wire.JOIN_CHAT, body)
        except Declined as declined:
            if declined.code != "already-member":
                raise
            joined = False
        self._is_mine(chat)
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
        """The messages of a chat with start <= updated <= end, ascending by updated."""
        messages = []
        while True:
            times = wire.TIME.pack(start) + (b"" if end is None else wire.TIME.pack(end))
            try:
                pack = self._safe(wire.REQUEST_CHAT_MSG, wire.U32.pack(chat) + times)
                return messages + self._reader(pack).all(Reader.message)
            except Declined as declined:
                if declined.code != "too-large":
                    raise
                fits = declined.number
            times = wire.TIME.pack(start) + wire.TIME.pack(fits)
            pack = self._safe(wire.REQUEST_CHAT_MSG, wire.U32.pack(chat) + times)
            messages += self._reader(pack).all(Reader.message)
            start = fits + 1

    def mark_seen(self, chat, upto):
        """Moves the marker of what was seen to the time of a message."""
        self._safe(wire.MARK_SEEN, wire.U32.pack(chat) + wire.TIME.pack(upto))

    # --- API 1.0: accounts and sessions ---

    def register_user(self, login, password, invite=None):
        """Makes an account, with an invite's code or link where the server asks for one: its user
        id. `login` comes after, and finds the chat of the invite among one's chats."""
        code = b"" if invite is None else text(invite_code(invite))
        return Reader(self.request(wire.REGISTER_USER, text(login) + text(password) + code)).u32()

    def change_password(self, old, new):
        """Sets another password; the user's other sessions end."""
        self.request(wire.CHANGE_PASSWORD, text(old) + text(new))

    def get_user(self, user):
        return Reader(self._safe(wire.GET_USER, wire.U32.pack(user))).user()

    def get_sessions(self):
        return Reader(self._safe(wire.GET_SESSIONS)).all(Reader.session)

    def end_session(self, session):
        self.request(wire.END_SESSION, wire.U32.pack(session))

    # --- API 1.0: chats ---

    def create_chat(self, name, password=None):
        """Makes a group; its maker is member and admin."""
        body = text(name) + (b"" if password is None else text(password))
        chat = Reader(self.request(wire.CREATE_CHAT, body)).u32()
        # Nothing of it can be missing yet.
        self._my_chats.add(chat)
        self._cursors.setdefault(chat, self._since)
        return chat

    def leave_chat(self, chat):
        self.request(wire.LEAVE_CHAT, wire.U32.pack(chat))
        self._chat_is_left(chat)

    def start_chat(self, user):
        """The direct chat with a user."""
        chat = Reader(self._safe(wire.START_CHAT, wire.U32.pack(user))).u32()
        self._is_mine(chat)
        return chat

    def delete_chat(self, chat):
        self.request(wire.DELETE_CHAT, wire.U32.pack(chat))
        self._chat_is_left(chat)

    def rename_chat(self, chat, name):
        self._safe(wire.RENAME_CHAT, wire.U32.pack(chat) + text(name))

    def set_chat_title(self, chat, title):
        self._safe(wire.SET_CHAT_TITLE, wire.U32.pack(chat) + text(title))

    def set_chat_password(self, chat, password=None):
        """Without a password none is needed any more."""
        body = wire.U32.pack(chat) + (b"" if password is None else text(password))
        self._safe(wire.SET_CHAT_PASSWORD, body)

    def set_chat_admin(self, chat, user, is_admin=True):
        self._safe(wire.SET_CHAT_ADMIN, struct.pack("<II?", chat, user, is_admin))

    def set_chat_ban(self, chat, user, is_banned=True):
        """Removes a member, who cannot join again; or lifts that."""
        self._safe(wire.SET_CHAT_BAN, struct.pack("<II?", chat, user, is_banned))

    def get_chat(self, chat):
        return self._reader(self._safe(wire.GET_CHAT, wire.U32.pack(chat))).chat_info()

    def get_my_chats(self):
        return self._reader(self._safe(wire.GET_MY_CHATS)).all(Reader.chat_info)

    def get_members(self, chat):
        return Reader(self._safe(wire.GET_MEMBERS, wire.U32.pack(chat))).all(Reader.member)

    def find_chats(self, prefix, limit=100):
        """Group chats whose names begin so."""
        body = text(prefix) + wire.U16.pack(limit)
        return self._reader(self._safe(wire.FIND_CHATS, body)).all(Reader.chat_info)

    # --- API 1.0: messages ---

    def edit_msg(self, chat, message, content):
        """Gives a message another text: the time of the edit."""
        body = _CHAT_MESSAGE.pack(chat, message_id(message)) + text(content)
        return self._changed(chat, message, self.request(wire.EDIT_MSG, body))

    def delete_msg(self, chat, message):
        """Empties a message, and removes its files: the time of its deletion."""
        body = _CHAT_MESSAGE.pack(chat, message_id(message))
        return self._changed(chat, message, self.request(wire.DELETE_MSG, body))

    def _changed(self, chat, message, answer):
        updated = Reader(answer).time()
        if self.has_files:
            self._note_own(chat, message_id(message), updated)
        return updated

    def request_chat_page(self, chat, message=0, limit=50, newer=False):
        """The newest `limit` messages older than a message (0: of all), ascending. With `newer`
        (API 1.1) the oldest `limit` of those newer than it."""
        body = _CHAT_MESSAGE.pack(chat, message_id(message)) + wire.U16.pack(limit)
        body += b"\1" if newer else b""
        return self._reader(self._safe(wire.REQUEST_CHAT_PAGE, body)).all(Reader.message)

    def search_msg(self, query, chat=0, limit=50):
        """Messages with all the words, best first, as (chat, message); chat 0: in all of mine."""
        body = struct.pack("<IH", chat, limit) + text(query)
        return self._reader(self._safe(wire.SEARCH_MSG, body)).all(Reader.chat_message)

    def request_updates(self, start):
        """What changed in all my chats from the time `start` on, as (chat, message): chat after
        chat, ascending by `updated` in each."""
        body = wire.TIME.pack(start)
        return self._reader(self._safe(wire.REQUEST_UPDATES, body)).all(Reader.chat_message)

    def typing(self, chat):
        """Notifies the other members that one is typing."""
        self._safe(wire.TYPING, wire.U32.pack(chat))

    # --- API 1.1: users and operators ---

    def find_users(self, prefix="", limit=100):
        """Users whose names begin so; disabled ones are shown to operators alone."""
        body = text(prefix) + wire.U16.pack(limit)
        return Reader(self._safe(wire.FIND_USERS, body)).all(Reader.user)

    def reset_password(self, user):
        """For operators: a code with which the user sets a new password, and when it expires."""
        body = Reader(self.request(wire.RESET_PASSWORD, wire.U32.pack(user)))
        return wire.ResetCode(body.str(), body.time())

    def set_password(self, login, code, new):
        """Sets a new password with an operator's code, without a session: the user's id. All
        sessions of the user end; `login` comes after."""
        return Reader(self.request(wire.SET_PASSWORD, text(login) + text(code) + text(new))).u32()

    def set_user_disabled(self, user, is_disabled=True):
        """For operators: ends the sessions of a user, who cannot log in any more; or lifts that."""
        self._safe(wire.SET_USER_DISABLED, struct.pack("<I?", user, is_disabled))

    # --- API 1.1: chats ---

    def add_member(self, chat, user):
        """For admins: makes a user a member, without any password; False when it was one."""
        try:
            self.request(wire.ADD_MEMBER, struct.pack("<II", chat, user))
        except Declined as declined:
            if declined.code != "already-member":
                raise
            return False
        return True

    def set_chat_closed(self, chat, is_closed=True):
        """For admins: a closed chat does not exist for those who are not members."""
        self._safe(wire.SET_CHAT_CLOSED, struct.pack("<I?", chat, is_closed))

    def set_chat_notify(self, chat, notify):
        """What one wants pushes of: NOTIFY_EVERYTHING, NOTIFY_MENTIONS or NOTIFY_NOTHING."""
        self._safe(wire.SET_CHAT_NOTIFY, struct.pack("<IB", chat, notify))

    def subscribe_push(self, endpoint="", p256dh=b"", auth=b""):
        """Asks for pushes to this session: the endpoint, and the keys as bytes (65 and 16). An
        empty endpoint: no more pushes."""
        self._safe(wire.SUBSCRIBE_PUSH, text(endpoint) + p256dh + auth)

    # --- API 1.1: reactions ---

    def react(self, chat, message, emoji, is_on=True):
        """Gives a message a reaction, or takes it back: the time of the change. What is so already
        changes nothing."""
        body = _CHAT_MESSAGE.pack(chat, message_id(message)) + wire.U8.pack(is_on) + text(emoji)
        return self._changed(chat, message, self._safe(wire.REACT, body))

    def get_reactions(self, chat, message):
        """Everybody who reacted to a message, as (user, emoji), the first first."""
        body = Reader(self._safe(wire.GET_REACTIONS, _CHAT_MESSAGE.pack(chat, message_id(message))))
        return body.all(lambda entry: (entry.u32(), entry.str()))

    # --- API 1.1: invites ---

    def create_invite(self, chat=0, *, registers=False, uses=1, days=7):
        """Makes an invite into a chat, or one that lets its bearer register, or both: its code,
        which is shown this once."""
        return Reader(self.request(
            wire.CREATE_INVITE, _NEW_INVITE.pack(registers, uses, days, chat)
        )).str()

    def get_invites(self, chat=0):
        """The invites of a chat that are still good, the oldest first; 0: all, for operators."""
        return Reader(self._safe(wire.GET_INVITES, wire.U32.pack(chat))).all(Reader.invite)

    def end_invite(self, hint):
        """Ends an invite, which `Invite.hint` names."""
        self.request(wire.END_INVITE, text(hint))

    def use_invite(self, code):
        """Joins the chat of an invite, by its code or link: the chat."""
        body = text(invite_code(code))
        chat = Reader(self._safe(wire.USE_INVITE, body)).u32()
        self._is_mine(chat)
        return chat
