#!/usr/bin/env python3
"""Checks Web Push with independent libraries, and measures what pushes cost other clients.

A push service in this process receives pushes of a real server over HTTPS, for subscriptions and
texts of many kinds. `http_ece` decrypts each (RFC 8291), `py_vapid` verifies the signature
(RFC 8292). Both are on PyPI: `pip install http_ece py-vapid`.

With --latency: prints percentiles of the send latency while pushes go to services that answer,
refuse connections, never answer, or answer without end. This part does not fail.

Exit code 0: all pushes are right. 1: one is not. 2: the libraries are missing.
"""

import argparse
import base64
import http.server
import json
import os
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time

from harness import Connection, Server, default_binary, text
from purpose.wire import API_1_1, GET_USER_ID, SEND_CHAT_MSG, START_CHAT, SUBSCRIBE_PUSH

NAME = "push.example"
TEXTS = ["hello", "x" * 190, "y" * 5_000, "Привет 🎉", "日本語" * 60, "\u0001\u0002" * 100, '"\\<&>']
PUSH_SECONDS = 60


class Service:
    """A push service under the name NAME: it records pushes, and answers in a chosen way."""

    def __init__(self, folder, binary, behaviour="answer"):
        self.received = []
        self.cert = os.path.join(folder, "cert.pem")
        key = os.path.join(folder, "key.pem")
        subprocess.run(
            [binary, "cert", "self-signed", NAME, "--cert", self.cert, "--key", key],
            check=True, stdout=subprocess.DEVNULL,
        )
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 600

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                service.received.append((self.path, headers, body))
                if behaviour == "silent":
                    time.sleep(600)
                elif behaviour == "endless":
                    self.send_response(503)
                    self.send_header("transfer-encoding", "chunked")
                    self.end_headers()
                    while True:
                        self.wfile.write(b"400\r\n" + b"x" * 0x400 + b"\r\n")
                self.send_response(201)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        class Quiet(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass

        self.server = Quiet(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def wait_for(self, count):
        deadline = time.monotonic() + PUSH_SECONDS
        while len(self.received) < count and time.monotonic() < deadline:
            time.sleep(0.05)
        return list(self.received)


def start(binary, folder, port, service=None):
    """Starts a server whose pushes to NAME go to a port of this machine."""
    if service:
        os.environ["SSL_CERT_FILE"] = service.cert
    server = Server(binary, folder)
    server.start(
        "--push", "on", "--push-hosts", NAME, "--push-resolve", f"{NAME}=127.0.0.1:{port}",
        "--push-contact", "admin@example.org", "--public-url", "https://chat.example.org",
    )
    return server


def subscribe(server, name, path, public, auth):
    """Subscribes a user to pushes and disconnects."""
    connection = Connection(server.address, version=API_1_1)
    connection.login(name)
    connection.ask(SUBSCRIBE_PUSH, text(f"https://{NAME}{path}") + public + auth)
    connection.close()


def check(binary):
    """Decrypts and verifies the pushes that the service receives; returns how many were right."""
    import http_ece
    import py_vapid
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    with tempfile.TemporaryDirectory() as folder:
        service = Service(folder, binary)
        server = start(binary, folder, service.port, service)
        keys = {}
        server.add_user("anna")
        anna = Connection(server.address, version=API_1_1)
        anna.login("anna")
        for number, content in enumerate(TEXTS):
            name = f"user{number}"
            server.add_user(name)
            key = ec.generate_private_key(ec.SECP256R1())
            public = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
            auth = os.urandom(16)
            keys[f"/{name}"] = (key, auth, content)
            subscribe(server, name, f"/{name}", public, auth)
            user = anna.ask(GET_USER_ID, text(name))
            chat = struct.unpack_from("<I", anna.ask(START_CHAT, user))[0]
            body = struct.pack("<I", chat) + text(content) + struct.pack("<Q", number)
            anna.ask(SEND_CHAT_MSG, body)
        right = 0
        for path, headers, body in service.wait_for(len(TEXTS)):
            key, auth, content = keys.pop(path)
            plain = http_ece.decrypt(
                body, private_key=key, auth_secret=auth, version="aes128gcm")
            shown = json.loads(plain)["notification"]["body"]
            expected = content if len(content) <= 200 else content[:199] + "…"
            assert shown == expected, (path, shown)
            assert len(body) <= 4096, (path, len(body))
            assert py_vapid.Vapid02.verify(headers["authorization"]), path
            right += 1
        server.stop()
        assert not keys, f"no push reached {list(keys)}"
    return right


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def measure(binary, behaviour, subscribers, seconds):
    """Seconds of each send while pushes go to a service of this kind, and the number of pushes."""
    with tempfile.TemporaryDirectory() as folder:
        service, port = None, None
        if behaviour == "dead":
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
        else:
            service = Service(folder, binary, behaviour)
            port = service.port
        server = start(binary, folder, port, service)
        server.add_members("hall", ["anna"] + [f"user{n}" for n in range(subscribers)])
        if behaviour != "none":
            # The browser's key of RFC 8291, appendix A.
            public = base64.urlsafe_b64decode(
                "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIA"
                "iw4=")
            for n in range(subscribers):
                subscribe(server, f"user{n}", f"/{n}", public, bytes(16))
        anna = Connection(server.address, version=API_1_1)
        anna.login("anna")
        chat = anna.chat_id("hall")
        took, number = [], 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            number += 1
            body = struct.pack("<I", chat) + text("hello") + struct.pack("<Q", number)
            begun = time.perf_counter()
            anna.ask(SEND_CHAT_MSG, body)
            took.append(time.perf_counter() - begun)
            time.sleep(0.002)
        stats = server.admin("stats", "--raw")
        sent = sum(
            int(line.split()[-1]) for line in stats.splitlines()
            if line.startswith(("vestnik_push_sent_total{", "vestnik_push_under_way ")))
        server.kill()
    return took, sent


def table(binary, subscribers, seconds):
    print(f"{subscribers} subscribers of one chat, a send every 2 ms for {seconds} s; ms of a send")
    print(f"{'push service':<14}{'sends':>8}{'p50':>8}{'p99':>8}{'p99.9':>8}{'most':>8}"
          f"{'pushes':>8}")
    for behaviour in ("none", "answer", "dead", "silent", "endless"):
        took, sent = measure(binary, behaviour, subscribers, seconds)
        shown = [percentile(took, share) for share in (0.5, 0.99, 0.999, 1)]
        columns = "".join(f"{1000 * value:>8.2f}" for value in shown)
        print(f"{behaviour:<14}{len(took):>8}{columns}{sent:>8}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default=default_binary())
    parser.add_argument("--latency", action="store_true", help="measure the send latency")
    parser.add_argument("--subscribers", type=int, default=50)
    parser.add_argument("--seconds", type=int, default=30)
    arguments = parser.parse_args()
    if arguments.latency:
        table(arguments.binary, arguments.subscribers, arguments.seconds)
        return 0
    try:
        import http_ece  # noqa: F401
        import py_vapid  # noqa: F401
    except ImportError as missing:
        print(f"nothing is checked: {missing}; pip install http_ece py-vapid", file=sys.stderr)
        return 2
    try:
        right = check(arguments.binary)
    except AssertionError as wrong:
        print(f"a push is wrong: {wrong}", file=sys.stderr)
        return 1
    print(f"{right} pushes were decrypted by http_ece, and their signatures verified by py_vapid")
    return 0


if __name__ == "__main__":
    sys.exit(main())
