#!/usr/bin/env python3
"""Tests `serve --domain` against pebble, an ACME authority for tests (Debian's package pebble).

    scripts/acme-check.py [--binary target/debug/vestnik] [CHECK …]

    issue     gets a certificate with default options, from an authority that rejects a third of
              all nonces; clients connect with it by HTTPS, WebSocket and Purpose
    renew     renews while clients exchange frames: no connection is lost
    restart   kill -9 in the middle of an order: the next start continues the order, or asks for
              another one at once if the authority checked while the server was down
    down      the authority is down: the old certificate stays, and SIGHUP retries
    wrong     a name that points elsewhere, and another program on port 443: the error names it
    browser   Chromium, which trusts the authority, opens a WebSocket with that certificate, and
              with one of `cert issue` (needs chromium and certutil)
    idle      without --domain the server connects to nothing and resolves nothing (strace)

Prints one line per check and stops at the first failure. Exit code 0: all passed. 1: one failed.
2: pebble is missing.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

from harness import PASSWORD, default_binary
from purpose import wire
from purpose.wire import frame, take_frames, text

NAME, OTHER_NAME = "chat.example.org", "www.example.org"
ACCEPTED, HEARTBEAT, HELLO, LOGIN = wire.ACCEPTED, wire.HEARTBEAT, wire.HELLO, wire.LOGIN


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def wait_until(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.1)
    raise SystemExit(f"not within {seconds} s: {what}")


class Process:
    """A child process with its output in a file."""

    def __init__(self, log, command, **options):
        self.log = log
        with open(log, "ab") as out:
            self.child = subprocess.Popen(command, stdout=out, stderr=out, **options)

    def output(self):
        return self.log.read_text(errors="replace")

    def stop(self, by=signal.SIGTERM):
        if self.child.poll() is None:
            self.child.send_signal(by)
            self.child.wait(20)


class Lab:
    """A folder with an authority, a DNS server and a chat server."""

    def __init__(self, folder, binary):
        self.folder, self.binary = folder, binary
        self.port, self.tls = free_port(), free_port()
        self.directory, self.management, self.dns = free_port(), free_port(), free_port()
        self.dns_management = free_port()
        self.pebble = self.server = self.names = None
        for arguments in (["cert", "ca"], ["cert", "issue", "localhost", "127.0.0.1"]):
            subprocess.run([binary, *arguments], cwd=folder, check=True, capture_output=True)
        self.own = ssl.create_default_context(cafile=folder / "ca.crt")

    def start_names(self):
        self.names = Process(
            self.folder / "names.txt",
            ["pebble-challtestsrv", "-defaultIPv6", "", "-http01", "", "-https01", "",
             "-tlsalpn01", "", "-dns01", f"127.0.0.1:{self.dns}",
             "-management", f"127.0.0.1:{self.dns_management}"],
        )
        wait_until(lambda: can_connect(self.dns_management), "the DNS server listens")

    def point_to(self, address):
        """Sets the address of the name in DNS."""
        body = json.dumps({"ip": address}).encode()
        url = f"http://127.0.0.1:{self.dns_management}/set-default-ipv4"
        urllib.request.urlopen(url, body, timeout=10).read()

    def start_pebble(self, life=None, **environment):
        config = {
            "listenAddress": f"127.0.0.1:{self.directory}",
            "managementListenAddress": f"127.0.0.1:{self.management}",
            "certificate": str(self.folder / "cert.pem"),
            "privateKey": str(self.folder / "key.pem"),
            "httpPort": 1,
            "tlsPort": self.tls,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": False,
        }
        if life:
            config["certificateValidityPeriod"] = life
        (self.folder / "pebble.json").write_text(json.dumps({"pebble": config}))
        self.pebble = Process(
            self.folder / "pebble.txt",
            ["pebble", "-config", str(self.folder / "pebble.json"),
             "-dnsserver", f"127.0.0.1:{self.dns}"],
            env={**os.environ, "PEBBLE_VA_NOSLEEP": "1", **environment},
        )
        wait_until(lambda: can_connect(self.directory), "pebble listens")

    def start_server(self, *more):
        """Starts the server with `--domain` and the directory of pebble."""
        self.server = Process(
            self.folder / "server.txt",
            [self.binary, "--data", "chat.db", "serve", "--domain", NAME,
             "--tls-listen", f"127.0.0.1:{self.tls}", "--listen", f"127.0.0.1:{self.port}",
             "--acme-directory", f"https://localhost:{self.directory}/dir",
             "--acme-ca", "ca.crt", "--password-iterations", "1", *more],
            cwd=self.folder,
            env={**os.environ, "RUST_LOG": "info"},
        )
        wait_until(lambda: can_connect(self.tls), "the server listens")

    def said(self, words):
        return words in self.server.output()

    def obtained(self):
        """Number of certificates that the server has got in all its runs."""
        return self.server.output().count("and will be renewed at")

    def context(self):
        """A TLS context that trusts the root of this pebble only."""
        url = f"https://localhost:{self.management}/roots/0"
        root = urllib.request.urlopen(url, timeout=10, context=self.own).read().decode()
        return ssl.create_default_context(cadata=root)

    def connect(self, context):
        plain = socket.create_connection(("127.0.0.1", self.tls), timeout=20)
        return context.wrap_socket(plain, server_hostname=NAME)

    def kept(self):
        return next(self.folder.glob("chat.db.acme/*"))

    def stop(self):
        for process in (self.server, self.pebble, self.names):
            if process:
                process.stop()


def can_connect(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


def ask(connection, request, buffer):
    """Sends one frame; returns the next frame."""
    connection.sendall(request)
    while not (frames := take_frames(buffer)):
        chunk = connection.recv(65536)
        if not chunk:
            raise EOFError("the server closed")
        buffer += chunk
    return frames[0]


def http(connection, request):
    connection.sendall(request.encode())
    return connection.recv(65536).decode(errors="replace").split("\r\n")[0]


def issue(lab):
    lab.start_pebble(PEBBLE_WFE_NONCEREJECT="33", PEBBLE_VA_NOSLEEP="0", PEBBLE_VA_SLEEPTIME="3")
    lab.start_server()
    begun = time.monotonic()
    wait_until(lambda: lab.obtained() == 1, "a certificate is there", 120)
    seconds = time.monotonic() - begun
    context = lab.context()
    with lab.connect(context) as connection:
        names = [name for _, name in connection.getpeercert()["subjectAltName"]]
        assert names == [NAME], names
        answer = http(connection, f"GET /healthz HTTP/1.1\r\nHost: {NAME}\r\n\r\n")
        assert answer == "HTTP/1.1 200 OK", answer
    with lab.connect(context) as connection:
        answer = http(
            connection,
            f"GET /ws HTTP/1.1\r\nHost: {NAME}\r\nOrigin: https://{NAME}\r\nConnection: Upgrade\r\n"
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        )
        assert answer.startswith("HTTP/1.1 101 "), answer
    with lab.connect(context) as connection:
        assert ask(connection, frame(HELLO, 1, b"\0\1"), bytearray())[0] == ACCEPTED
    modes = {oct(path.stat().st_mode & 0o777) for path in lab.kept().iterdir()}
    assert modes == {"0o600"}, modes
    assert sorted(path.name for path in lab.kept().iterdir()) == ["account.json", f"{NAME}.pem"]
    assert lab.said(f"https://{NAME}/#invite="), "the first link names the domain"
    return f"a certificate after {seconds:.0f} s; HTTPS, WebSocket and Purpose with it"


class Talker(threading.Thread):
    """A client that exchanges frames without pause."""

    def __init__(self, connection, login):
        super().__init__()
        self.connection, self.count, self.failure, self.is_over = connection, 0, None, False
        self.slowest = 0.0
        buffer = bytearray()
        assert ask(connection, frame(HELLO, 1, b"\0\1"), buffer)[0] == ACCEPTED
        assert ask(connection, frame(LOGIN, 2, login), buffer)[0] == ACCEPTED

    def run(self):
        buffer = bytearray()
        try:
            while not self.is_over:
                begun = time.monotonic()
                body = b"%d" % self.count
                answer = ask(self.connection, frame(HEARTBEAT, 9, body), buffer)
                if answer != (ACCEPTED, 9, body):
                    raise ValueError(answer)
                self.slowest = max(self.slowest, time.monotonic() - begun)
                self.count += 1
                time.sleep(0.002)
        except (OSError, EOFError, ValueError) as error:
            self.failure = error


def renew(lab):
    lab.start_pebble(life=30)
    lab.start_server("--domain", OTHER_NAME)
    subprocess.run(
        [lab.binary, "--data", "chat.db", "user", "add", "anna", "--password-stdin",
         "--password-iterations", "1"],
        cwd=lab.folder, input=PASSWORD, text=True, check=True, capture_output=True,
    )
    wait_until(lambda: lab.obtained() >= 1, "a certificate is there")
    context = lab.context()
    login = text("anna") + text(PASSWORD)
    talkers = [Talker(lab.connect(context), login) for _ in range(20)]
    with lab.connect(context) as connection:
        first = connection.getpeercert()["serialNumber"]
        names = [name for _, name in connection.getpeercert()["subjectAltName"]]
    assert sorted(names) == sorted([NAME, OTHER_NAME]), names
    for talker in talkers:
        talker.start()
    serials = {first}
    end = time.monotonic() + 90
    # New connections get whatever is newest, and never one that is over.
    while time.monotonic() < end and lab.obtained() < 4:
        with lab.connect(context) as connection:
            serials.add(connection.getpeercert()["serialNumber"])
        time.sleep(0.5)
    for talker in talkers:
        talker.is_over = True
    for talker in talkers:
        talker.join()
    failed = [talker.failure for talker in talkers if talker.failure]
    assert not failed, failed
    assert lab.obtained() >= 4 and len(serials) >= 3, (lab.obtained(), serials)
    count = sum(talker.count for talker in talkers)
    slowest = max(talker.slowest for talker in talkers)
    return (
        f"{lab.obtained() - 1} renewals under {count} exchanges of {len(talkers)} clients, none "
        f"dropped; the slowest took {slowest * 1000:.0f} ms"
    )


def restart(lab):
    lab.start_pebble(PEBBLE_VA_NOSLEEP="0", PEBBLE_VA_SLEEPTIME="6", PEBBLE_WFE_NONCEREJECT="0")
    too_late = 0
    for attempt in range(9):
        shutil.rmtree(lab.folder / "chat.db.acme", ignore_errors=True)
        lab.start_server()
        order = "chat.db.acme/*/order.json"
        wait_until(lambda: list(lab.folder.glob(order)), "an order is kept")
        time.sleep(0.5)
        if not list(lab.folder.glob(order)):
            # The authority was too quick this time.
            lab.server.stop(signal.SIGKILL)
            continue
        url = json.loads(list(lab.folder.glob(order))[0].read_text())["url"]
        lab.server.stop(signal.SIGKILL)
        before, failed = lab.obtained(), lab.server.output().count("the earlier order failed")
        orders = lab.pebble.output().count("Added order")
        lab.start_server()
        wait_until(lambda: lab.obtained() > before, "a certificate after the restart", 30)
        assert not list(lab.folder.glob(order)), "the order is forgotten once it is done"
        lab.connect(lab.context()).close()
        added = lab.pebble.output().count("Added order") - orders
        failed = lab.server.output().count("the earlier order failed") - failed
        if added == failed == 1:
            # The authority checked while nobody could answer.
            lab.server.stop(signal.SIGKILL)
            too_late += 1
            continue
        assert added == 0, f"{added} further orders"
        return (
            f"killed in the middle of {url.rsplit('/', 1)[1][:8]}…, which was gone on with"
            + (f"; {too_late} more were replaced at once" if too_late else "")
        )
    raise SystemExit("no order was caught in the middle")


def down(lab):
    lab.start_pebble(life=60)
    lab.start_server()
    wait_until(lambda: lab.obtained() == 1, "a certificate is there")
    old = lab.context()
    lab.pebble.stop()
    wait_until(lambda: lab.said("is not renewed"), "a line says that the authority is gone")
    line = last_line(lab, "is not renewed")
    assert "cannot ask localhost" in line and "connection refused" in line, line
    assert "the next attempt is in 2 minutes, or at SIGHUP" in line, line
    with lab.connect(old) as connection:
        serial = connection.getpeercert()["serialNumber"]
    # It has forgotten the account, and has another root.
    lab.start_pebble()
    lab.server.child.send_signal(signal.SIGHUP)
    wait_until(lambda: lab.obtained() == 2, "a certificate once the authority is back")
    with lab.connect(lab.context()) as connection:
        assert connection.getpeercert()["serialNumber"] != serial
    return "the old pair stays, one line says why; SIGHUP gets another once it is back"


def last_line(lab, words):
    return [line for line in lab.server.output().splitlines() if words in line][-1]


def wrong(lab):
    lab.start_pebble()
    # Nothing listens at this address.
    lab.point_to("127.0.0.9")
    lab.start_server()
    wait_until(lambda: lab.said("no certificate for"), "a line says what is wrong")
    line = last_line(lab, "no certificate for")
    # Pebble calls it unauthorized, where others say connection.
    assert f"port 443 of {NAME}" in line and "127.0.0.9" in line, line
    # Something else listens there, with a certificate of its own.
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    other.load_cert_chain(lab.folder / "cert.pem", lab.folder / "key.pem")
    other.set_alpn_protocols(["acme-tls/1"])
    with socket.create_server(("127.0.0.9", lab.tls)) as listener:
        threading.Thread(target=serve_other, args=(listener, other), daemon=True).start()
        lab.server.child.send_signal(signal.SIGHUP)
        wait_until(
            lambda: lab.server.output().count("no certificate for") > 1,
            "a line says what answers",
        )
        line = last_line(lab, "no certificate for")
        assert f"something else answers on port 443 of {NAME}" in line, line
    # Once the name points here, SIGHUP is enough.
    lab.point_to("127.0.0.1")
    lab.server.child.send_signal(signal.SIGHUP)
    wait_until(lambda: lab.obtained() == 1, "a certificate after the name is right")
    lab.connect(lab.context()).close()
    return "a line for each; a certificate once the name points here and SIGHUP came"


def serve_other(listener, context):
    with contextlib.suppress(OSError):
        while True:
            plain, _ = listener.accept()
            with contextlib.suppress(OSError, ssl.SSLError):
                context.wrap_socket(plain, server_side=True).close()


class Browser:
    """Chromium, driven by the DevTools protocol over a pair of pipes."""

    def __init__(self, folder, root, rules):
        home = folder / "home"
        store = home / ".pki" / "nssdb"
        store.mkdir(parents=True, exist_ok=True)
        (folder / "root.pem").write_text(root)
        database = f"sql:{store}"
        for command in (["-N", "--empty-password"],
                        ["-A", "-t", "C,,", "-n", "root", "-i", str(folder / "root.pem")]):
            subprocess.run(["certutil", "-d", database, *command], check=True, capture_output=True)
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        # Chromium reads commands from descriptor 3 and writes answers to descriptor 4.
        shell = f"exec chromium \"$@\" 3<&{theirs_in} 4>&{theirs_out}"
        self.child = subprocess.Popen(
            ["bash", "-c", shell, "chromium", "--headless", "--no-sandbox", "--disable-gpu",
             "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--remote-debugging-pipe", f"--host-resolver-rules={rules}",
             f"--user-data-dir={home}/profile"],
            pass_fds=(theirs_in, theirs_out), env={**os.environ, "HOME": str(home)},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.answers, self.commands, self.count = os.fdopen(ours_in, "rb"), ours_out, 0
        self.session = None

    def call(self, method, **params):
        self.count += 1
        command = {"id": self.count, "method": method, "params": params}
        if self.session:
            command["sessionId"] = self.session
        os.write(self.commands, json.dumps(command).encode() + b"\0")
        while True:
            message = bytearray()
            while (byte := self.answers.read(1)) not in (b"\0", b""):
                message += byte
            answer = json.loads(message)
            if answer.get("id") == self.count:
                return answer["result"]

    def open(self, url):
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        error = self.call("Page.navigate", url=url).get("errorText")
        assert not error, f"{url}: {error}"
        time.sleep(1)

    def evaluate(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True,
                           returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"]["value"]

    def close(self):
        self.child.kill()
        self.child.wait()


HELLO_OF_A_PAGE = """new Promise((resolve, reject) => {
  const socket = new WebSocket(`wss://${location.host}/ws`, 'purpose');
  socket.binaryType = 'arraybuffer';
  socket.onopen = () => socket.send(new Uint8Array([2, 0, 0, 0, 0x20, 1, 0, 1]));
  socket.onmessage = (event) => resolve([...new Uint8Array(event.data)]);
  socket.onerror = () => reject(new Error('no WebSocket'));
})"""


def browser(lab):
    for program in ("chromium", "certutil"):
        if not shutil.which(program):
            return f"skipped: {program} is missing"
    lab.start_pebble()
    lab.start_server()
    wait_until(lambda: lab.obtained() == 1, "a certificate is there")
    url = f"https://localhost:{lab.management}/roots/0"
    root = urllib.request.urlopen(url, timeout=10, context=lab.own).read().decode()
    greets(lab, "acme", root, NAME)
    lab.server.stop()
    # The same with an authority of a LAN, which names what it may vouch for.
    subprocess.run(
        [lab.binary, "cert", "issue", "chat.lan", "--cert", "lan.pem", "--key", "lan.key"],
        cwd=lab.folder, check=True, capture_output=True,
    )
    lab.server = Process(
        lab.folder / "server.txt",
        [lab.binary, "--data", "chat.db", "serve", "--tls-listen", f"127.0.0.1:{lab.tls}",
         "--tls-cert", "lan.pem", "--tls-key", "lan.key"],
        cwd=lab.folder,
    )
    wait_until(lambda: can_connect(lab.tls), "the server listens")
    greets(lab, "lan", (lab.folder / "ca.crt").read_text(), "chat.lan")
    return "Chromium speaks through wss to both, and shows the page"


def greets(lab, part, root, name):
    """Opens a WebSocket from a page of the server in a browser that trusts the authority."""
    folder = lab.folder / part
    folder.mkdir()
    page = Browser(folder, root, f"MAP {name} 127.0.0.1:{lab.tls}")
    try:
        page.open(f"https://{name}/")
        answer = page.evaluate(HELLO_OF_A_PAGE)
        assert answer[4:6] == [ACCEPTED, 1], answer
        assert page.evaluate("window.isSecureContext && document.title !== ''")
    finally:
        page.close()


def idle(lab):
    traced = shutil.which("strace") and subprocess.run(
        ["strace", "-o", "/dev/null", "true"], capture_output=True
    )
    if not traced or traced.returncode:
        return "skipped: strace is missing, or may not trace here"
    trace = lab.folder / "trace.txt"
    server = Process(
        lab.folder / "idle.txt",
        ["strace", "-f", "-o", str(trace), "-e", "trace=connect,socket,sendto,sendmsg,openat",
         lab.binary, "--data", "idle.db", "serve", "--listen", f"127.0.0.1:{lab.port}",
         "--tls-listen", f"127.0.0.1:{lab.tls}", "--tls-cert", "cert.pem", "--tls-key", "key.pem"],
        cwd=lab.folder, env={k: v for k, v in os.environ.items() if k != "NOTIFY_SOCKET"},
    )
    wait_until(lambda: can_connect(lab.tls), "the server listens")
    time.sleep(3)
    os.kill(int(subprocess.run(["pgrep", "-P", str(server.child.pid)], capture_output=True,
                               text=True, check=True).stdout.split()[0]), signal.SIGTERM)
    server.child.wait(20)
    lines = trace.read_text().splitlines()
    assert any("SOCK_STREAM" in line for line in lines), "the trace shows the listeners"
    forbidden = re.compile(r"connect\(|SOCK_DGRAM|resolv\.conf|nsswitch|/etc/hosts|/etc/ssl|\.acme")
    found = [line for line in lines if forbidden.search(line)]
    assert not found, found
    return "no connection, no datagram, no look at resolv.conf or the system's authorities"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default=None)
    parser.add_argument("checks", nargs="*", metavar="CHECK")
    arguments = parser.parse_args()
    checks = {f.__name__: f for f in (issue, renew, restart, down, wrong, browser, idle)}
    for name in arguments.checks:
        if name not in checks:
            parser.error(f"{name} is none of {', '.join(checks)}")
    if not shutil.which("pebble") or not shutil.which("pebble-challtestsrv"):
        print("skipped: pebble is missing (Debian: apt install pebble)")
        sys.exit(2)
    binary = os.path.abspath(arguments.binary or default_binary())
    for name in arguments.checks or checks:
        with tempfile.TemporaryDirectory(
            prefix="vestnik-acme-", ignore_cleanup_errors=True
        ) as folder:
            lab = Lab(pathlib.Path(folder), binary)
            try:
                lab.start_names()
                print(f"{name}: {checks[name](lab)}", flush=True)
            except BaseException:
                for log in sorted(pathlib.Path(folder).glob("*.txt")):
                    print(f"--- {log.name}\n{log.read_text(errors='replace')[-6000:]}", file=sys.stderr)
                raise
            finally:
                lab.stop()


if __name__ == "__main__":
    main()
