"""One connection as a stream of frames: over TCP, TLS, or a WebSocket on either of them."""

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

# Longest body accepted from a server: nothing it sends comes near, but for the 1 MiB of a range
# on 0.1.
BODY_BYTES_MAX = 2 << 20
# Bytes that are read ahead while a send waits for the server to read.
READ_AHEAD_BYTES_MAX = 16 << 20
RECEIVE_BYTES = 1 << 16


class Link:
    """One connection as a stream of frames. Knows no session.

    address   (host, port)
    tls       a `Tls`, or None
    timeout   seconds to connect, and for which one send may take
    path      of the WebSocket, such as "/ws"; None: no WebSocket
    source    the address to connect from
    plain     a socket that is connected, instead of a new one
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
        """Sends frames, or any bytes. Reads on meanwhile: a server whose answers are not read
        stops to read, too."""
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
        """The next frame as (purpose, task, body); None when none came before the deadline."""
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
        # Bytes that have come are read even when the deadline is past.
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
        """Adds what has come to the buffer; False when nothing had."""
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
        """The bytes of Purpose in those of the WebSocket, whose Pings and Close are answered."""
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
    """Makes a WebSocket of a connection; gives the bytes that came behind the server's answer."""
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
    """The client's side of WebSocket (RFC 6455), without input and output: wraps bytes into
    frames, and unwraps them. What is to be sent by itself (Pong, Close) waits in `outgoing`."""

    CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

    def __init__(self):
        self.raw, self.outgoing, self.is_over = bytearray(), b"", False

    @classmethod
    def wrap(cls, data, opcode=BINARY, is_last=True):
        """Bytes as one masked frame."""
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
        """The bytes of Purpose among those that came."""
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
        """The opcode of the frame at an index, and where its payload begins and ends; None when it
        has not come whole."""
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


def split_url(url):
    """The address, the path and whether it is over TLS, of the URL of a WebSocket."""
    scheme, _, rest = url.partition("://")
    if scheme.lower() not in ("ws", "wss"):
        raise ValueError(f"{url} is not the address of a WebSocket: ws:// or wss://")
    is_secure = scheme.lower() == "wss"
    authority, slash, path = rest.partition("/")
    has_port = ":" in authority.rpartition("]")[2]
    port = "" if has_port else ":443" if is_secure else ":80"
    return split_address(authority + port), slash + path if path else "/ws", is_secure


def split_address(address):
    """A pair of host and port, of "host:port"."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"{address!r} is not host:port")
    return host.strip("[]"), int(port)
