#!/usr/bin/env python3
"""Tests the server behind nginx and Caddy, with the configurations of docs/operations.md.

    scripts/proxies.py [--binary target/debug/vestnik] [--idle SECONDS | --idle-minutes N]
                       [nginx] [caddy]

For each installed proxy it checks: the page and an asset, a WebSocket upgrade, the client's address
in the list of sessions, a WebSocket that is idle for a while (70 seconds by default, because nginx
closes after 60; --idle-minutes 10 is the long form), and one that survives a reload of the proxy.
Prints one line per check and stops at the first failure.
"""

import argparse
import contextlib
import http.client
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from harness import PASSWORD, ROOT, Server
from purpose import Client, Disconnected

# The address that a client has for the proxies: not the one by which they reach the server.
CLIENT = "127.0.0.77"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def block(heading):
    """The configuration that docs/operations.md gives under a heading."""
    page = (ROOT / "docs" / "operations.md").read_text()
    found = re.search(rf"^{re.escape(heading)}.*?^```\w*\n(.*?)^```", page, re.S | re.M)
    if not found:
        sys.exit(f"docs/operations.md has no configuration under {heading!r}")
    return found.group(1)


def wait_for(port):
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    sys.exit(f"nothing listens on port {port}")


class Nginx:
    name = "nginx"

    def __init__(self, folder, port, upstream):
        lines = block("### nginx")
        lines = re.sub(r"listen 443[^;]*;", f"listen 127.0.0.1:{port};", lines)
        lines = re.sub(r"^\s*ssl_certificate.*\n", "", lines, flags=re.M)
        lines = lines.replace("127.0.0.1:7420", f"127.0.0.1:{upstream}")
        self.config = folder / "nginx.conf"
        self.config.write_text(
            f"daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;\n"
            f"events {{}}\nhttp {{ access_log off; client_body_temp_path {folder}/body;\n"
            f"proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;\n"
            f"uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;\n{lines}\n}}\n"
        )
        self.process = subprocess.Popen(["nginx", "-c", str(self.config), "-p", str(folder)])

    def reload(self):
        subprocess.run(
            ["nginx", "-c", str(self.config), "-p", str(self.config.parent), "-s", "reload"],
            check=True, stderr=subprocess.DEVNULL,
        )


class Caddy:
    name = "caddy"

    def __init__(self, folder, port, upstream):
        lines = block("### Caddy").replace("chat.example.org", f"http://localhost:{port}")
        lines = lines.replace("127.0.0.1:7420", f"127.0.0.1:{upstream}")
        self.admin = free_port()
        self.config = folder / "Caddyfile"
        self.config.write_text(f"{{\n\tadmin 127.0.0.1:{self.admin}\n}}\n{lines}")
        self.environment = {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder)}
        self.process = subprocess.Popen(
            ["caddy", "run", "--config", str(self.config), "--adapter", "caddyfile"],
            env=self.environment, stderr=subprocess.DEVNULL,
        )

    def reload(self):
        self.config.write_text(self.config.read_text() + "# changed\n")
        subprocess.run(
            ["caddy", "reload", "--config", str(self.config), "--adapter", "caddyfile",
             "--address", f"127.0.0.1:{self.admin}", "--force"],
            env=self.environment, check=True, stderr=subprocess.DEVNULL,
        )


def check(is_so, what):
    print(("ok    " if is_so else "FAILED ") + what, flush=True)
    if not is_so:
        sys.exit(1)


def connect(port):
    """A session through the proxy, which is not made anew when it breaks."""
    client = Client(f"ws://localhost:{port}/ws", retry_seconds=0, source=CLIENT)
    client.login("anna", PASSWORD)
    return client


def idle(client, seconds):
    """Sends nothing but answers to the server's HEARTBEAT; whether the connection lives on."""
    until = time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            client.poll(1)
        return bool(client.get_sessions())
    except Disconnected as broken:
        print(f"      after {seconds - until + time.monotonic():.0f} s: {broken}")
        return False


def try_proxy(kind, upstream, idle_seconds):
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        proxy = kind(pathlib.Path(folder), port, upstream)
        try:
            wait_for(port)
            page = http.client.HTTPConnection("localhost", port)
            page.request("GET", "/")
            answer = page.getresponse()
            text = answer.read().decode()
            part = re.search(r'"(/a/[0-9a-f]{16}/[^"]+)"', text).group(1)
            page.request("GET", part, headers={"Accept-Encoding": "gzip"})
            has_part = page.getresponse().status == 200
            check(answer.status == 200 and has_part, f"{kind.name}: the page and its parts")
            client = connect(port)
            check(True, f"{kind.name}: a WebSocket")
            mine = next(session for session in client.get_sessions() if session.is_this)
            check(mine.address == CLIENT, f"{kind.name}: the client's address is {mine.address}")
            check(idle(client, idle_seconds), f"{kind.name}: alive after {idle_seconds:g} idle seconds")
            proxy.reload()
            time.sleep(1)
            again = connect(port)
            check(True, f"{kind.name}: new connections after a reload")
            hall = again.get_chat_id("hall")
            try:
                outcome = "lives on" if client.get_chat_id("hall") == hall else "is another"
            except Disconnected:
                outcome = "is cut, and a client comes back by itself"
            check(True, f"{kind.name}: the old connection {outcome}")
        finally:
            proxy.process.terminate()
            proxy.process.wait()


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--binary", default=str(ROOT / "target" / "debug" / "vestnik"))
    arguments.add_argument("--idle", type=float, default=70, metavar="SECONDS")
    arguments.add_argument("--idle-minutes", type=float, metavar="N")
    arguments.add_argument("proxies", nargs="*", default=["nginx", "caddy"])
    options = arguments.parse_args()
    idle_seconds = 60 * options.idle_minutes if options.idle_minutes else options.idle
    kinds = {kind.name: kind for kind in (Nginx, Caddy)}
    with tempfile.TemporaryDirectory() as folder:
        server = Server(options.binary, folder)
        server.add_members("hall", ["anna"])
        server.start("--trusted-proxy", "127.0.0.1")
        try:
            for name in options.proxies:
                if not shutil.which(name):
                    print(f"      {name} is not installed: skipped")
                    continue
                try_proxy(kinds[name], server.address[1], idle_seconds)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
