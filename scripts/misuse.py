"""Misuse of HTTP and WebSocket, for attacks.py and soak.py: requests, and the expected answers.

Each function does one round from its own address and returns what the server did wrong.
"""

import random
import socket
import struct
import time

from harness import WEB_PATH, WebSocket, frame, shake_hands
from purpose.wire import HEARTBEAT

POST = "POST /hook/nobody HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n"
# A request that must not be answered: what stands before it ends the connection.
SECOND = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
# What a proxy could read as other requests than the server does, and the status that is due.
SMUGGLED = [
    ("two lengths", POST + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
    ("a length and chunks", POST + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
                                   "0\r\n\r\n", 400),
    ("chunks and a length", POST + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n"
                                   "0\r\n\r\n", 400),
    ("chunks alone", POST + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", (400, 411)),
    ("a list of lengths", POST + "Content-Length: 1, 1\r\n\r\na", 400),
    ("a length with a sign", POST + "Content-Length: +1\r\n\r\na", 400),
    ("a length past 64 bits", POST + "Content-Length: 18446744073709551617\r\n\r\na", (400, 413)),
    ("space before the colon", POST + "Content-Length : 1\r\n\r\na", 400),
    ("bare LF", "GET / HTTP/1.1\nHost: a\n\n", 400),
    ("bare CR", "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", 400),
    ("a folded line", "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", 400),
    ("absolute form", "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("no host", "GET / HTTP/1.1\r\n\r\n", 400),
    ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ("a body of GET", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab", 400),
    ("a long head", f"GET / HTTP/1.1\r\nHost: a\r\nX: {'y' * 9000}\r\n\r\n", 431),
    ("many lines", "GET / HTTP/1.1\r\nHost: a\r\n" + "X: y\r\n" * 100 + "\r\n", 431),
    ("another major version", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    # Behind a request that is one: by themselves they are no HTTP to the server.
    ("CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
]
LATER = ("CONNECT", "the preface of HTTP/2")
FIRST = "GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n"

UPGRADE = (
    f"GET {WEB_PATH} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
).encode()

# For how long a server that is set to be strict lets a connection be without a session.
UNAUTHORIZED_SECONDS = 5

_wrap, _web = WebSocket.wrap, WebSocket
# What breaks a rule of RFC 6455, and the code of the Close that is due.
BROKEN_FRAMES = [
    ("no mask", b"\x82\x05hello", 1002),
    ("a reserved bit", b"\xc2\x80\0\0\0\0", 1002),
    ("a reserved opcode", _wrap(b"", 0x3), 1002),
    ("a control frame in fragments", _wrap(b"", _web.PING, is_last=False), 1002),
    ("a long control frame", _wrap(b"x" * 126, _web.PING), 1002),
    ("a continuation of nothing", _wrap(b"x", _web.CONTINUATION), 1002),
    ("a message within a message",
     _wrap(b"", _web.BINARY, is_last=False) + _wrap(b"x"), 1002),
    ("a length with its top bit", b"\x82\xff" + struct.pack(">Q", 1 << 63), 1002),
    ("a length in no shortest form", b"\x82\xfe\0\x05\0\0\0\0hello", 1002),
    ("a Close of one byte", _wrap(b"\x03", _web.CLOSE), 1002),
    ("a Close with a reserved code", _wrap(b"\x03\xed", _web.CLOSE), 1002),
    ("text", _wrap(b"text", _web.TEXT), 1003),
]


class Raw:
    """A raw byte connection, optionally from a given source address."""

    def __init__(self, address, source, timeout=40):
        self.socket = socket.create_connection(address, timeout, (source, 0))
        self.address = address

    def send(self, data):
        self.socket.sendall(data)

    def read_to_end(self):
        """Reads until the server ends the stream; a reset counts as the end."""
        answer = bytearray()
        try:
            while chunk := self.socket.recv(1 << 16):
                answer += chunk
        except ConnectionError:
            pass
        return bytes(answer)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


def statuses(answer):
    """The status codes of consecutive HTTP answers."""
    lines = answer.split(b"HTTP/1.1 ")[1:]
    return [int(line[:3]) for line in lines if line[:3].isdigit()]


def smuggle(address, source):
    """Sends ambiguous requests: each must get one answer, and the connection must end."""
    for what, request, due in SMUGGLED:
        is_later = what in LATER
        with Raw(address, source) as peer:
            peer.send(((FIRST if is_later else "") + request + SECOND).encode())
            found = statuses(peer.read_to_end())
        due = due if isinstance(due, tuple) else (due,)
        wanted = [[404, status] if is_later else [status] for status in due]
        if found not in wanted:
            yield f"{what}: answered with {found}, not {' or '.join(map(str, wanted))}"


def drip_until_ended(peer, data, seconds, pause):
    """Sends a byte at a time until the server closes; returns how long that took, or None."""
    begun = time.monotonic()
    peer.socket.settimeout(pause)
    while time.monotonic() - begun < seconds:
        try:
            peer.send(data[:1])
            data = data[1:]
            if peer.socket.recv(4096) == b"":
                return time.monotonic() - begun
        except TimeoutError:
            pass
        except OSError:
            return time.monotonic() - begun
    return None


SLOW_BODY = POST.encode() + b"Content-Length: 1000\r\n\r\n"
# What is sent slowly; how many bytes of it come at once; the seconds that it may take, with
# some more for a busy machine.
SLOW = [
    ("a slow head", b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 1000, 4, 10 + 10),
    ("a slow body", SLOW_BODY + b"z" * 1000, len(SLOW_BODY), 30 + 10),
    ("half an upgrade", UPGRADE[:-2] + b"X: " + b"y" * 1000, len(UPGRADE) - 2, 10 + 10),
]


def crawl(address, source, pause=0.3):
    """Sends a slow head, a slow body or half an upgrade: the server must close it in time."""
    what, data, at_once, seconds = random.choice(SLOW)
    with Raw(address, source) as peer:
        peer.send(data[:at_once])
        took = drip_until_ended(peer, data[at_once:], seconds, pause)
    if took is None:
        yield f"{what}: still open after {seconds} s"


def close_code(answer):
    """The code of the Close frame among unmasked frames; None without one."""
    at = 0
    while at + 2 <= len(answer):
        opcode, size, start = answer[at] & 0x0F, answer[at + 1], at + 2
        if size >= 126:
            start += 2 if size == 126 else 8
            size = int.from_bytes(answer[at + 2 : start], "big")
        if opcode == WebSocket.CLOSE:
            return int.from_bytes(answer[start : start + 2], "big")
        at = start + size
    return None


def break_frames(address, source):
    """Sends frames that RFC 6455 forbids: the server must send the right Close and end."""
    for what, data, due in BROKEN_FRAMES:
        with Raw(address, source) as peer:
            rest = shake_hands(peer.socket, address, WEB_PATH)
            peer.send(data)
            found = close_code(rest + peer.read_to_end())
        if found != due:
            yield f"{what}: closed with {found}, not {due}"


def fragment(address, source, seconds=2):
    """Sends messages of empty and tiny fragments with Pings in between, and reads no Pongs for a
    while: valid WebSocket, at its most expensive."""
    payload = frame(HEARTBEAT, 9, b"f" * 1024)
    burst = bytearray(_wrap(b"", _web.BINARY, is_last=False))
    for at in range(len(payload)):
        burst += _wrap(payload[at : at + 1], _web.CONTINUATION, is_last=False)
        burst += _wrap(b"", _web.CONTINUATION, is_last=False) + _wrap(b"p" * 100, _web.PING)
    burst += _wrap(b"", _web.CONTINUATION)
    begun, sent = time.monotonic(), 0
    with Raw(address, source) as peer:
        shake_hands(peer.socket, address, WEB_PATH)
        while time.monotonic() < begun + seconds:
            peer.send(burst)
            sent += 1
            drain(peer, sent)
        peer.send(_wrap(b"\x03\xe8", _web.CLOSE))
        code = close_code_at_end(peer)
        # Later it may have been closed as a connection without a session.
        if code != 1000 and time.monotonic() < begun + UNAUTHORIZED_SECONDS:
            yield "fragments with Pings between them: not closed with 1000"


def drain(peer, sent):
    """Reads now and then, so that the server is not blocked."""
    if sent % 4:
        return
    peer.socket.setblocking(False)
    try:
        while peer.socket.recv(1 << 18):
            pass
    except BlockingIOError:
        pass
    finally:
        peer.socket.settimeout(40)


def close_code_at_end(peer):
    """The code of the Close that ends the stream."""
    answer = peer.read_to_end()
    return int.from_bytes(answer[-2:], "big") if len(answer) >= 4 and answer[-4] == 0x88 else None
