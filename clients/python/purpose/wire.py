"""Codec of the Purpose protocol: purposes, frames, fields and structures.

It does no I/O, so other clients and tests can use it alone.
"""

import struct
from typing import NamedTuple

from .errors import ProtocolError

# Versions of the API, oldest first.
API_0_1, API_1_0, API_1_1 = (0, 1), (1, 0), (1, 1)

# Purposes in both directions.
ACCEPTED, DECLINED, HEARTBEAT, DISCONNECT, PART = range(0x00, 0x05)
# Purposes to the server, API 0.1.
HELLO, LOGIN, LOGOFF, RESTORE_SESSION, GET_USER_ID, GET_CHAT_ID = range(0x20, 0x26)
CHAT_REQ_PASS, JOIN_CHAT, SEND_CHAT_MSG, REQUEST_CHAT_MSG, MARK_SEEN = range(0x26, 0x2B)
# API 1.0.
REGISTER_USER, CHANGE_PASSWORD, GET_USER, GET_SESSIONS, END_SESSION = range(0x30, 0x35)
CREATE_CHAT, LEAVE_CHAT, START_CHAT, DELETE_CHAT, RENAME_CHAT, SET_CHAT_TITLE = range(0x38, 0x3E)
SET_CHAT_PASSWORD, SET_CHAT_ADMIN, SET_CHAT_BAN, GET_CHAT = range(0x3E, 0x42)
GET_MY_CHATS, GET_MEMBERS, FIND_CHATS = range(0x42, 0x45)
EDIT_MSG, DELETE_MSG, REQUEST_CHAT_PAGE, SEARCH_MSG = range(0x48, 0x4C)
REQUEST_UPDATES, TYPING = range(0x4C, 0x4E)
# API 1.1.
SET_PASSWORD, RESET_PASSWORD, FIND_USERS = range(0x35, 0x38)
SET_USER_DISABLED, ADD_MEMBER, SET_CHAT_CLOSED = range(0x45, 0x48)
REACT, GET_REACTIONS, SET_CHAT_NOTIFY, SUBSCRIBE_PUSH = range(0x4E, 0x52)
CREATE_INVITE, GET_INVITES, END_INVITE, USE_INVITE = range(0x52, 0x56)
BEGIN_FILE, PUT_FILE, GET_FILE, END_FILE = range(0x58, 0x5C)
# Notifications from the server.
MSG_NOTIFY, DEAUTH = 0x20, 0x22
CHAT_NOTIFY, CHAT_GONE, MEMBER_NOTIFY, SEEN_NOTIFY = range(0x30, 0x34)
TYPING_NOTIFY, PRESENCE_NOTIFY, REACTION_NOTIFY = range(0x34, 0x37)

# Requests whose answer is a pack, which PARTs may precede.
PACKS = frozenset((
    REQUEST_CHAT_MSG, GET_SESSIONS, GET_MY_CHATS, GET_MEMBERS, FIND_CHATS, REQUEST_CHAT_PAGE,
    SEARCH_MSG, REQUEST_UPDATES, FIND_USERS, GET_REACTIONS, GET_INVITES,
))

# Extras of a message.
REPLY, FILE, REACTIONS, ATTACH = 0x01, 0x02, 0x03, 0x04

# Values of `ChatInfo.notify`: which messages cause pushes.
NOTIFY_EVERYTHING, NOTIFY_MENTIONS, NOTIFY_NOTHING = 0, 1, 2
# Values of `Hello.registration`.
REGISTRATION_CLOSED, REGISTRATION_INVITE, REGISTRATION_OPEN = 0, 1, 2
# Users that a reaction shows, at most.
SHOWN_MAX = 20
# Longest body to a server that does not say it.
BODY_BYTES_MAX = 64 * 1024
# The latest time.
TIME_MAX = (1 << 63) - 1

HEADER = struct.Struct("<IBB")
U8, U16, U32 = struct.Struct("<B"), struct.Struct("<H"), struct.Struct("<I")
U64, TIME = struct.Struct("<Q"), struct.Struct("<q")
_MESSAGE = struct.Struct("<QIqqB")
_CHAT_INFO = struct.Struct("<IBBIqqI")
_MEMBER, _SESSION = struct.Struct("<IBq"), struct.Struct("<IBqq")
_USER, _SENT, _EXTRA = struct.Struct("<IBq"), struct.Struct("<Qq"), struct.Struct("<BH")
_FILE, _CHANGE, _INVITE = struct.Struct("<QQHH"), struct.Struct("<QqIB"), struct.Struct("<BHqqII")


class File(NamedTuple):
    """A file of a chat. `width` and `height` are pixels; 0 if it is not an image or video."""

    id: int
    size: int
    width: int
    height: int
    media_type: str
    name: str


class Reaction(NamedTuple):
    """One emoji of a message: its count, and the first users who gave it (at most 20)."""

    emoji: str
    count: int
    users: tuple


class Message(NamedTuple):
    """A message of a chat. Times are server times, in microseconds since the epoch.

    `is_new` in a callback: the message is delivered for the first time and is not deleted.
    Elsewhere: it has not changed since it was sent.
    """

    id: int
    sender: int
    created: int
    updated: int
    status: int
    content: str
    reply_to: int = 0
    files: tuple = ()
    reactions: tuple = ()
    is_new: bool = False

    is_edited = property(lambda self: bool(self.status & 1))
    is_deleted = property(lambda self: bool(self.status & 2))


class ReactionChange(NamedTuple):
    """A reaction that was added (`is_on`) or removed."""

    message: int
    updated: int
    user: int
    is_on: bool
    emoji: str


class ChatInfo(NamedTuple):
    """A chat from the user's view. `seen` is the user's read marker, 0 at first."""

    id: int
    kind: int
    flags: int
    members: int
    last_message: int
    seen: int
    unread: int
    name: str
    title: str
    notify: int = NOTIFY_EVERYTHING

    is_direct = property(lambda self: self.kind == 1)
    has_password = property(lambda self: bool(self.flags & 1))
    is_member = property(lambda self: bool(self.flags & 2))
    is_admin = property(lambda self: bool(self.flags & 4))
    is_closed = property(lambda self: bool(self.flags & 8))


class Member(NamedTuple):
    """A member of a chat, or a banned user (visible to admins)."""

    user: int
    flags: int
    seen: int
    nickname: str

    is_admin = property(lambda self: bool(self.flags & 1))
    is_online = property(lambda self: bool(self.flags & 2))
    is_banned = property(lambda self: bool(self.flags & 4))


class User(NamedTuple):
    """A user. On API 1.0 only `is_online` of the flags is known."""

    id: int
    flags: int
    created: int
    nickname: str

    is_operator = property(lambda self: bool(self.flags & 1))
    is_online = property(lambda self: bool(self.flags & 2))
    is_disabled = property(lambda self: bool(self.flags & 4))
    is_bot = property(lambda self: bool(self.flags & 8))


class Session(NamedTuple):
    """One of the user's sessions."""

    id: int
    flags: int
    created: int
    used: int
    address: str

    is_this = property(lambda self: bool(self.flags & 1))
    is_attached = property(lambda self: bool(self.flags & 2))


class Invite(NamedTuple):
    """A valid invite. `hint` identifies it; only its creator knows the code.

    `creator` is 0 for the command line; `chat` is 0 if it leads to none.
    """

    hint: str
    registers: bool
    uses_left: int
    expires: int
    created: int
    creator: int
    chat: int


class Sent(NamedTuple):
    """The id and time of a stored message."""

    id: int
    created: int


class ResetCode(NamedTuple):
    """A code with which a user sets a new password, and its expiry."""

    code: str
    expires: int


class Hello(NamedTuple):
    """The server's answer to HELLO: the last three fields on API 1.1, those before them on 1.0."""

    major: int
    minor: int
    max_body: int = BODY_BYTES_MAX
    max_content: int = 16 * 1024
    server: str = ""
    max_file: int = 0
    push_key: str = ""
    registration: int = REGISTRATION_CLOSED

    version = property(lambda self: (self.major, self.minor))


def frame(purpose, task, body=b""):
    """Encodes a frame."""
    return HEADER.pack(len(body), purpose, task) + body


def take_frames(buffer):
    """Removes the complete frames from a bytearray. Returns a list of (purpose, task, body)."""
    frames, at = [], 0
    while len(buffer) - at >= HEADER.size:
        length, purpose, task = HEADER.unpack_from(buffer, at)
        end = at + HEADER.size + length
        if end > len(buffer):
            break
        frames.append((purpose, task, bytes(buffer[at + HEADER.size : end])))
        at = end
    del buffer[:at]
    return frames


def text(value):
    """Encodes a str."""
    encoded = value.encode()
    if b"\0" in encoded:
        raise ValueError("a str of the protocol holds no NUL")
    return encoded + b"\0"


def sent_extras(reply_to=None, files=()):
    """Encodes the extras of SEND_CHAT_MSG: the message that it answers, and ids of files."""
    entries = [(REPLY, reply_to)] if reply_to else []
    entries += [(ATTACH, file) for file in files]
    return b"".join(_EXTRA.pack(kind, U64.size) + U64.pack(value) for kind, value in entries)


class Reader:
    """Decodes fields from the front of a body, with the structures of a version."""

    def __init__(self, body, version=API_1_1):
        self.body, self.at = body, 0
        self.version = version

    def __bool__(self):
        return self.at < len(self.body)

    def unpack(self, fields):
        """Decodes fields by a `struct.Struct`."""
        try:
            values = fields.unpack_from(self.body, self.at)
        except struct.error as error:
            raise ProtocolError("a body ends inside a field") from error
        self.at += fields.size
        return values

    def u8(self):
        return self.unpack(U8)[0]

    def u16(self):
        return self.unpack(U16)[0]

    def u32(self):
        return self.unpack(U32)[0]

    def u64(self):
        return self.unpack(U64)[0]

    def time(self):
        return self.unpack(TIME)[0]

    def bytes(self, count):
        """Takes `count` bytes."""
        if self.at + count > len(self.body):
            raise ProtocolError("a body ends inside a field")
        self.at += count
        return self.body[self.at - count : self.at]

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
        fields = self.unpack(_MESSAGE)
        message = Message(*fields, self.str(), is_new=fields[2] == fields[3])
        if self.version < API_1_1:
            return message
        extras = self.bytes(self.u16())
        return _with_extras(message, Reader(extras)) if extras else message

    def file(self):
        return File(*self.unpack(_FILE), self.str(), self.str())

    def reaction(self):
        emoji, count = self.str(), self.u16()
        return Reaction(emoji, count, tuple(self.u32() for _ in range(self.u8())))

    def reaction_change(self):
        message, updated, user, is_on = self.unpack(_CHANGE)
        return ReactionChange(message, updated, user, bool(is_on), self.str())

    def chat_info(self):
        info = ChatInfo(*self.unpack(_CHAT_INFO), self.str(), self.str())
        return info if self.version < API_1_1 else info._replace(notify=self.u8())

    def member(self):
        return Member(*self.unpack(_MEMBER), self.str())

    def user(self):
        return User(*self.unpack(_USER), self.str())

    def session(self):
        return Session(*self.unpack(_SESSION), self.str())

    def invite(self):
        hint, (registers, *others) = self.str(), self.unpack(_INVITE)
        return Invite(hint, bool(registers), *others)

    def sent(self):
        return Sent(*self.unpack(_SENT))

    def chat_message(self):
        return self.u32(), self.message()

    def hello(self):
        spoken = self.unpack(U8) + self.unpack(U8)
        if spoken < API_1_0:
            return Hello(*spoken)
        hello = Hello(*spoken, self.u32(), self.u32(), self.str())
        if spoken < API_1_1:
            return hello
        return hello._replace(max_file=self.u64(), push_key=self.str(), registration=self.u8())

    def all(self, take):
        """Decodes a pack: calls `take` until the end."""
        entries = []
        while self:
            entries.append(take(self))
        return entries


def _with_extras(message, extras):
    """A message with its extras; unknown kinds are skipped."""
    reply_to, files, reactions = 0, [], ()
    while extras:
        kind, length = extras.unpack(_EXTRA)
        extra = Reader(extras.bytes(length))
        if kind == REPLY:
            reply_to = extra.u64()
        elif kind == FILE:
            files.append(extra.file())
        elif kind == REACTIONS:
            reactions = tuple(extra.all(Reader.reaction))
    return message._replace(reply_to=reply_to, files=tuple(files), reactions=reactions)
