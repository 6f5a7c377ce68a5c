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
            if isinstance(error, OSError) and not isinstance(error, ssl.SSLCertVerificationError):
                raise Disconnected(f"no connection to {address[0]}:{address[1]}: {error}") from error
            raise

    def fileno(self):
        return self.socket.fileno()

    def send(self, data):
        """Sends frames, or any bytes.

        Reads meanwhile, because the server stops reading from a client that does not read answers
        (backpressure)."""
        if self.web:
            data = self.web.outgoing + self.web.wrap(data)
            self.web.outgoing = b""
        self.send_raw(data)

    def send_raw(self, data):
        """Sends bytes below the WebSocket, if there is one."""
        left, deadline = memoryview(data), time.monotonic() + self.timeout
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

    def receive(self, deadline):
        """Returns the next frame as (purpose, task, body); None when none arrives in time."""
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
            if not self._fill(deadline):
                return None

    def _fill(self, deadline):
        # Received bytes are handled even if the deadline has passed.
        if self._read():
            return True
        if time.monotonic() >= deadline:
            return False
        self._wait(deadline, select.POLLIN)
        return True

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
        elif self.web.outgoing:
            try:
                sent = self.socket.send(self.web.outgoing)
                self.web.outgoing = self.web.outgoing[sent:]
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                pass  # goes with the next send
            except OSError as error:
                self.close()
                raise Disconnected(f"the connection broke: {error}") from error
        return payload

    def _end_web(self):
        try:
            self.socket.send(self.web.outgoing)
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
    answer = bytearray()
    while b"\r\n\r\n" not in answer:
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

    Encodes bytes into frames and decodes them. Replies to send (Pong, Close) wait in `outgoing`."""

    CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

    def __init__(self):
        self.raw, self.outgoing, self.is_over = bytearray(), b"", False

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

    def unwrap(self, chunk):
        """Decodes received bytes; returns those of Purpose."""
        self.raw += chunk
        payload, at = bytearray(), 0
        while not self.is_over and (found := self._frame(at)):
            opcode, start, at = found
            content = bytes(self.raw[start:at])
            if opcode in (self.CONTINUATION, self.BINARY):
                payload += content
            elif opcode == self.PING:
                self.outgoing += self.wrap(content, self.PONG)
            elif opcode == self.CLOSE:
                self.is_over = True
                self.outgoing += self.wrap(content[:2], self.CLOSE)
        del self.raw[:at]
        return bytes(payload)

    def _frame(self, at):
        """The opcode of the frame at an index, and start and end of its payload.

        None when the frame is incomplete."""
        if len(self.raw) - at < 2:
            return None
        first, size, start = self.raw[at], self.raw[at + 1], at + 2
        if size > 127 or first & 0x70 or first & 0x0F not in (0, self.BINARY, 8, 9, 10):
            raise ProtocolError("a frame that is none of WebSocket")
        if size >= 126:
            start += 2 if size == 126 else 8
            if len(self.raw) < start:
                return None
            size = int.from_bytes(self.raw[at + 2 : start], "big")
        if size > BODY_BYTES_MAX:
            raise ProtocolError("a message longer than any answer")
        return (first & 0x0F, start, start + size) if len(self.raw) >= start + size else None


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
