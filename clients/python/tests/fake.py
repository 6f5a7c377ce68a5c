"""A server that answers as a test says: what the real one never does."""

import base64
import hashlib
import socket
import threading

from purpose import wire

INFO = wire.U32.pack(1) + bytes([0, 2]) + wire.U32.pack(2) + wire.TIME.pack(0) * 2 + \
    wire.U32.pack(0) + wire.text("hall") + wire.text("") + b"\0"
OWN_SESSION = wire.U32.pack(1) + b"\1" + wire.TIME.pack(5) * 2 + wire.text("127.0.0.1")
USER = wire.U32.pack(7) + b"\0"


def hello(max_body=64 * 1024):
    """The answer to HELLO of API 1.1."""
    return bytes([1, 1]) + wire.U32.pack(max_body) + wire.U32.pack(16 * 1024) + \
        wire.text("fake") + wire.U64.pack(1 << 20) + wire.text("") + b"\0"


def message(number, content="", updated=None):
    """A message of user 8, of API 1.1."""
    times = wire.TIME.pack(number) + wire.TIME.pack(updated or number)
    head = wire.U64.pack(number) + wire.U32.pack(8) + times + b"\0"
    return head + wire.text(content) + wire.U16.pack(0)


class Peer:
    """One connection to the fake server."""

    def __init__(self, plain, is_web):
        self.socket, self.is_web, self.buffer = plain, is_web, bytearray()
        if is_web:
            self._upgrade()

    def _upgrade(self):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.socket.recv(1)
        lines = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        suffix = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(lines[b"Sec-WebSocket-Key"] + suffix).digest())
        self.socket.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )

    def exactly(self, count):
        data = b""
        while len(data) < count:
            chunk = self.socket.recv(count - len(data))
            if not chunk:
                raise ConnectionError("the client is gone")
            data += chunk
        return data

    def web_frame(self):
        """The next frame of the WebSocket: (opcode, payload)."""
        first, size = self.exactly(2)
        if not size & 0x80:
            raise AssertionError("a frame without a mask")
        size &= 0x7F
        if size >= 126:
            size = int.from_bytes(self.exactly(2 if size == 126 else 8), "big")
        mask, payload = self.exactly(4), self.exactly(size)
        whole = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
        return first & 0x0F, (int.from_bytes(payload, "big") ^ whole).to_bytes(size, "big")

    def request(self):
        """The next request: (purpose, task, body)."""
        while not (frames := self._frames()):
            if self.is_web:
                opcode, payload = self.web_frame()
                if opcode not in (0x2, 0xA):
                    raise AssertionError(f"a frame with opcode {opcode}")
                self.buffer += payload if opcode == 0x2 else b""
            else:
                self.buffer += self.exactly(1)
        return frames[0]

    def _frames(self):
        if len(self.buffer) < wire.HEADER.size:
            return []
        end = wire.HEADER.size + wire.HEADER.unpack_from(self.buffer)[0]
        if len(self.buffer) < end:
            return []
        taken = self.buffer[:end]
        del self.buffer[:end]
        return wire.take_frames(taken)

    def send(self, purpose, task, body=b""):
        data = wire.frame(purpose, task, body)
        if self.is_web:
            size = len(data)
            head = bytes([0x82, size]) if size < 126 else b"\x82\x7e" + size.to_bytes(2, "big")
            data = head + data
        self.socket.sendall(data)

    def accept(self, task, body=b""):
        self.send(wire.ACCEPTED, task, body)

    def decline(self, task, reason):
        self.send(wire.DECLINED, task, wire.text(reason))


class Listener:
    """Accepts connections on a port of its own; `accepted` gets each socket."""

    def __init__(self):
        self.threads = []
        self.listener = socket.create_server(("127.0.0.1", 0))

    def start(self, work, *values):
        thread = threading.Thread(target=work, args=values, daemon=True)
        self.threads.append(thread)
        thread.start()

    def accept_all(self):
        while True:
            try:
                plain, _ = self.listener.accept()
            except OSError:
                return
            self.accepted(plain)


class FakeServer(Listener):
    """Accepts connections; `answers[purpose](peer, task, body)` answers a request.

    `requests` lists the purposes that arrived, `errors` what a client did wrong."""

    def __init__(self, answers=None, is_web=False, receive_bytes=None):
        super().__init__()
        self.answers = {
            wire.HELLO: lambda peer, task, _: peer.accept(task, hello()),
            wire.LOGIN: lambda peer, task, _: peer.accept(
                task, wire.U32.pack(1) + wire.text("ab" * 32) + USER),
            wire.RESTORE_SESSION: lambda peer, task, _: peer.accept(task, USER),
            wire.GET_SESSIONS: lambda peer, task, _: peer.accept(task, OWN_SESSION),
            wire.GET_MY_CHATS: lambda peer, task, _: peer.accept(task, INFO),
            wire.HEARTBEAT: lambda peer, task, body: peer.accept(task, body),
            **(answers or {}),
        }
        self.is_web, self.requests, self.errors = is_web, [], []
        self.sockets = []
        if receive_bytes:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        host, port = self.listener.getsockname()
        self.address = f"ws://{host}:{port}/ws" if is_web else (host, port)
        self.start(self.accept_all)

    def accepted(self, plain):
        self.sockets.append(plain)
        self.start(self._serve, plain)

    def _serve(self, plain):
        try:
            peer = Peer(plain, self.is_web)
            while True:
                purpose, task, body = peer.request()
                self.requests.append(purpose)
                answer = self.answers.get(purpose)
                if answer:
                    answer(peer, task, body)
                else:
                    peer.accept(task)
        except OSError:
            pass  # the client is gone, or the test ended
        except Exception as error:
            self.errors.append(error)
        plain.close()

    def close(self):
        for one in (self.listener, *self.sockets):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.listener.close()
        for thread in self.threads:
            thread.join(10)
        for one in self.sockets:
            one.close()
