"""A connection as a stream of frames: over TCP or TLS, optionally in a WebSocket."""

import base64
import hashlib
import hmac
import secrets
import select
import socket
import ssl
import struct
import time

from .errors import Disconnected, ProtocolError
from .wire import HEADER

# Longest body accepted from a server. Its longest answer is a range of 1 MiB on API 0.1.
BODY_BYTES_MAX = 2 << 20
# Bytes read ahead while a send waits for the server.
READ_AHEAD_BYTES_MAX = 16 << 20
RECEIVE_BYTES = 1 << 16
# Reads after a deadline, for what has arrived by then: a flood must not go on forever.
LATE_READS_MAX = 2 * BODY_BYTES_MAX // RECEIVE_BYTES


class Link:
    """A connection as a stream of frames. Must not know sessions.

    address   (host, port)
    tls       a `Tls`, or None
    timeout   seconds to connect, and for one send
    path      path of the WebSocket, such as "/ws"; None: no WebSocket
    source    local address to connect from
    plain     a connected socket to use instead of a new one
    """

    def __init__(self, address, tls=None, timeout=60, path=None, source=None, plain=None):
        self.web = None
        self.buffer, self.at = bytearray(), 0
        # Replies of the WebSocket of which a part may be sent; they have to be completed first.
        self._begun, self._is_sending = b"", False
        self.last_byte = time.monotonic()
        self.timeout = timeout
        source = (source, 0) if source else None
        try:
            self.socket = plain or socket.create_connection(address, timeout, source)
        except OSError as error:
            raise Disconnected(f"no connection to {address[0]}:{address[1]}: {error}") from error
        try:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls:
                self.socket = tls.wrap(self.socket, address[0])
            if path:
                rest = shake_hands(self.socket, address, path, is_tls=bool(tls))
                self.web = WebSocket()
                self.buffer += self.web.unwrap(rest)
            self.socket.setblocking(False)
        except BaseException as error:
            self.socket.close()
            if not isinstance(error, OSError) or isinstance(error, ssl.SSLCertVerificationError):
                raise
            raise Disconnected(f"no connection to {address[0]}:{address[1]}: {error}") from error

    def fileno(self):
        return self.socket.fileno()

    def send(self, data):
        """Sends frames, or any bytes.

        Reads meanwhile, because the server stops reading from a client that does not read answers
        (backpressure)."""
        self.send_raw(self.web.wrap(data) if self.web else data)

    def send_raw(self, data):
        """Sends bytes below the WebSocket, if there is one.

        Replies that become due meanwhile wait: nothing may be put into a half-sent frame."""
        if self.web:
            data, self._begun = self._begun + self.web.take_replies() + data, b""
        left, deadline = memoryview(data), time.monotonic() + self.timeout
        self._is_sending = True
        try:
            while left:
                try:
                    left = left[self.socket.send(left) :]
                except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                    has_room = len(self.buffer) < READ_AHEAD_BYTES_MAX
                    self._wait(deadline, select.POLLOUT | (select.POLLIN if has_room else 0))
                    if has_room:
                        self._read()
                    if time.monotonic() > deadline:
                        raise TimeoutError("the server does not read") from None
        except OSError as error:
            self.close()
            if isinstance(error, Disconnected):
                raise
            raise Disconnected(f"the connection broke: {error}") from error
        finally:
            self._is_sending = False
        if self.web:
            self._send_replies()

    def receive(self, deadline):
        """Returns the next frame as (purpose, task, body); None when none arrives in time."""
        late_reads = 0
        while True:
            if len(self.buffer) - self.at >= HEADER.size:
                length, purpose, task = HEADER.unpack_from(self.buffer, self.at)
                if length > BODY_BYTES_MAX:
                    self.close()
                    raise ProtocolError("a frame longer than any answer")
                end = self.at + HEADER.size + length
                if end <= len(self.buffer):
                    body = bytes(self.buffer[self.at + HEADER.size : end])
                    self.at = end
                    return purpose, task, body
            # Received bytes are handled even if the deadline has passed.
            is_late = time.monotonic() >= deadline
            late_reads += is_late
            if late_reads > LATE_READS_MAX:
                return None
            if not self._read():
                if is_late:
                    return None
                self._wait(deadline, select.POLLIN)

    def _wait(self, deadline, events):
        poll = select.poll()
        poll.register(self.socket, events)
        left = max(deadline - time.monotonic(), 0)
        poll.poll(None if left == float("inf") else 1 + int(1000 * left))

    def _read(self):
        """Reads into the buffer; False when nothing has arrived."""
        try:
            chunk = self.socket.recv(RECEIVE_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError as error:
            self.close()
            raise Disconnected(f"the connection broke: {error}") from error
        if not chunk:
            self.close()
            raise Disconnected("the server ended the connection")
        self.last_byte = time.monotonic()
        del self.buffer[: self.at]
        self.at = 0
        self.buffer += self._unwrap(chunk) if self.web else chunk
        return True

    def _unwrap(self, chunk):
        """Decodes WebSocket bytes to those of Purpose; answers Pings and Close."""
        try:
            payload = self.web.unwrap(chunk)
        except ProtocolError:
            self.close()
            raise
        if self.web.is_over:
            self._end_web()
            if not payload:
                raise Disconnected("the server closed the WebSocket")
        elif not self._is_sending:
            self._send_replies()
        return payload

    def _send_replies(self):
        """Sends the replies of the WebSocket, as far as the socket accepts them."""
        # Over TLS, bytes that were offered once have to be offered again.
        self._begun = self._begun or self.web.take_replies()
        if not self._begun:
            return
        try:
            self._begun = self._begun[self.socket.send(self._begun) :]
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass  # they go with the next send
        except OSError as error:
            self.close()
            raise Disconnected(f"the connection broke: {error}") from error

    def _end_web(self):
        if not self._is_sending:
            try:
                self.socket.send(self._begun + self.web.take_replies())
            except OSError:
                pass  # the other side may be gone already
        self.close()

    def close(self):
        self.socket.close()


def shake_hands(plain, address, path, is_tls=False):
    """Does the handshake of a WebSocket; returns the bytes after the server's answer."""
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    if address[1] != (443 if is_tls else 80):
        host += f":{address[1]}"
    key = base64.b64encode(secrets.token_bytes(16))
    plain.sendall(
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key.decode()}\r\n"
        "Sec-WebSocket-Protocol: purpose\r\n\r\n".encode()
    )
    # The socket's timeout is that of one read; here it is the time for the whole answer.
    timeout, answer = plain.gettimeout(), bytearray()
    deadline = None if timeout is None else time.monotonic() + timeout
    while b"\r\n\r\n" not in answer:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Disconnected(f"no answer of HTTP within {timeout} s")
            plain.settimeout(left)
        chunk = plain.recv(4096)
        if not chunk or len(answer) > 8192:
            raise Disconnected("no answer of HTTP")
        answer += chunk
    head, _, rest = bytes(answer).partition(b"\r\n\r\n")
    status = head.split(b"\r\n")[0].split(b" ")
    if status[:2] != [b"HTTP/1.1", b"101"]:
        raise Disconnected(f"no WebSocket there, but {b' '.join(status).decode('latin-1')}")
    suffix = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(key + suffix).digest())
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    values = {name.lower(): value.strip() for name, _, value in lines}
    if values.get(b"sec-websocket-accept") != accept:
        raise ProtocolError("a handshake that is none of WebSocket")
    return rest


class WebSocket:
    """Client side of a WebSocket (RFC 6455) without I/O.

    Encodes bytes into frames and decodes them. The replies to send are those of `take_replies`: a
    Close, and a Pong for the latest Ping only, so that a flood of Pings costs no memory."""

    CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
    # Longest payload of a Close, Ping or Pong.
    CONTROL_BYTES_MAX = 125

    def __init__(self):
        self.raw, self.is_over = bytearray(), False
        self._is_fragmented, self._pong, self._close = False, b"", b""

    @classmethod
    def wrap(cls, data, opcode=BINARY, is_last=True):
        """Encodes bytes as one masked frame."""
        size, first = len(data), (0x80 if is_last else 0) | opcode
        if size < 126:
            head = struct.pack(">BB", first, 0x80 | size)
        elif size < 1 << 16:
            head = struct.pack(">BBH", first, 0xFE, size)
        else:
            head = struct.pack(">BBQ", first, 0xFF, size)
        mask = secrets.token_bytes(4)
        whole = (mask * (size // 4 + 1))[:size]
        masked = int.from_bytes(data, "big") ^ int.from_bytes(whole, "big")
        return head + mask + masked.to_bytes(size, "big")

    def take_replies(self):
        """Takes the frames that are due as replies."""
        replies, self._pong, self._close = self._pong + self._close, b"", b""
        return replies

    def unwrap(self, chunk):
        """Decodes received bytes; returns those of Purpose."""
        self.raw += chunk
        payload, at, ping = bytearray(), 0, None
        while not self.is_over and (found := self._frame(at)):
            opcode, is_last, start, at = found
            content = bytes(self.raw[start:at])
            if opcode in (self.CONTINUATION, self.BINARY):
                if (opcode == self.CONTINUATION) != self._is_fragmented:
                    raise ProtocolError("a frame of a WebSocket that is out of place")
                self._is_fragmented = not is_last
                payload += content
            elif opcode == self.PING:
                ping = content
            elif opcode == self.CLOSE:
                if len(content) == 1:
                    raise ProtocolError("half a code in the Close of a WebSocket")
                self.is_over = True
                self._close = self.wrap(content[:2], self.CLOSE)
        if ping is not None:
            self._pong = self.wrap(ping, self.PONG)
        del self.raw[:at]
        return bytes(payload)

    def _frame(self, at):
        """The frame at an index: opcode, whether it is the last of its message, and its payload's
        start and end. None when the frame is incomplete."""
        if len(self.raw) - at < 2:
            return None
        first, size, start = self.raw[at], self.raw[at + 1], at + 2
        opcode, is_last = first & 0x0F, bool(first & 0x80)
        if size > 127 or first & 0x70 or opcode not in (0, self.BINARY, 8, 9, 10):
            raise ProtocolError("a frame that is none of WebSocket")
        if opcode >= self.CLOSE and (size > self.CONTROL_BYTES_MAX or not is_last):
            raise ProtocolError("a control frame of a WebSocket that is too long or in pieces")
        if size >= 126:
            shortest = 126 if size == 126 else 1 << 16
            start += 2 if size == 126 else 8
            if len(self.raw) < start:
                return None
            size = int.from_bytes(self.raw[at + 2 : start], "big")
            if size < shortest:
                raise ProtocolError("a length of a WebSocket that is not in its shortest form")
        if size > BODY_BYTES_MAX:
            raise ProtocolError("a message longer than any answer")
        return (opcode, is_last, start, start + size) if len(self.raw) >= start + size else None


class Tls:
    """How to authenticate the server: by its certificate's SHA-256, or by an authority."""

    def __init__(self, fingerprint=None, ca_file=None, server_name=None):
        self.pinned = fingerprint and bytes.fromhex(fingerprint.replace(":", ""))
        if self.pinned is not None and len(self.pinned) != 32:
            raise ValueError("a fingerprint is the SHA-256 of a certificate: 64 hex digits")
        self.server_name = server_name
        self.context = ssl.create_default_context(cafile=ca_file)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.pinned:
            # A pinned certificate needs no authority; `wrap` compares its fingerprint.
            self.context.check_hostname = False
            self.context.verify_mode = ssl.CERT_NONE

    def wrap(self, plain, host):
        """Does the TLS handshake.

        A certificate that is not the pinned one fails it before a byte of data is sent."""
        wrapped = self.context.wrap_socket(plain, server_hostname=self.server_name or host)
        if self.pinned:
            found = hashlib.sha256(wrapped.getpeercert(binary_form=True) or b"").digest()
            if not hmac.compare_digest(found, self.pinned):
                wrapped.close()
                raise ssl.SSLCertVerificationError("the certificate is not the pinned one")
        return wrapped


def split_url(url):
    """Parses a WebSocket URL: (address, path, whether it is over TLS)."""
    scheme, _, rest = url.partition("://")
    if scheme.lower() not in ("ws", "wss"):
        raise ValueError(f"{url} is not the address of a WebSocket: ws:// or wss://")
    is_secure = scheme.lower() == "wss"
    authority, slash, path = rest.partition("/")
    has_port = ":" in authority.rpartition("]")[2]
    port = "" if has_port else ":443" if is_secure else ":80"
    return split_address(authority + port), slash + path if path else "/ws", is_secure


def split_address(address):
    """Parses "host:port" into a pair."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"{address!r} is not host:port")
    return host.strip("[]"), int(port)
