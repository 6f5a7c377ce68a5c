//! Requests and answers as bytes: every status and header of protocol section 9, cut anywhere.

use std::io::Read as _;

use flate2::read::GzDecoder;

use super::*;

const SOCKET: &str = "192.0.2.1";
/// 2026-11-30 10:00:00 UTC.
const WALL_US: i64 = 1_796_032_800_000_000;

struct Server {
    site: Site,
    surface: Surface,
    is_empty: bool,
}

impl Default for Server {
    fn default() -> Self {
        Self { site: Site::default(), surface: Surface::Public, is_empty: false }
    }
}

/// The outcome of one request.
struct Got {
    step: Step,
    out: String,
    raw: Vec<u8>,
}

impl Got {
    fn status(&self) -> &str {
        self.out.split(' ').nth(1).unwrap_or_default()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let (head, _) = self.out.split_once("\r\n\r\n").expect("a head");
        let mut lines = head.lines().skip(1).map(|line| line.split_once(": ").expect("a line"));
        lines.find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn body(&self) -> &[u8] {
        let end = self.raw.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head");
        &self.raw[end + 4..]
    }

    fn is_last(&self) -> bool {
        let Step::Answered(used) = &self.step else { panic!("{:?}", self.step) };
        assert_eq!(
            self.header("connection") == Some("close"),
            used.exchange.is_last,
            "{}",
            self.out
        );
        used.exchange.is_last
    }
}

impl Server {
    fn setting(&self) -> Setting<'_> {
        Setting {
            site: &self.site,
            surface: self.surface,
            socket: SOCKET.parse().unwrap(),
            is_empty: self.is_empty,
            wall_us: WALL_US,
        }
    }

    /// Feeds one request in pieces, each with what was left of the ones before it.
    fn feed(&self, request: &[u8], pieces: impl Iterator<Item = usize>) -> Got {
        let (mut http, mut raw, mut inbox) = (Http::default(), Vec::new(), Vec::new());
        let mut rest = request;
        let mut step = Step::Wait(0);
        for piece in pieces {
            let (now, later) = rest.split_at(piece.min(rest.len()));
            rest = later;
            inbox.extend_from_slice(now);
            step = http.next(&inbox, &self.setting(), &mut raw);
            match &step {
                Step::Wait(used) => drop(inbox.drain(..*used)),
                _ => break,
            }
            if rest.is_empty() {
                break;
            }
        }
        let out = String::from_utf8_lossy(&raw).into_owned();
        Got { step, out, raw }
    }

    /// The same request in one piece and cut anywhere; the answers must be equal.
    #[track_caller]
    fn ask(&self, request: &str) -> Got {
        let whole = self.feed(request.as_bytes(), std::iter::once(usize::MAX));
        let bytes = self.feed(request.as_bytes(), std::iter::repeat(1));
        let status = |got: &Got| got.out.lines().next().unwrap_or_default().to_owned();
        if !whole.out.starts_with("HTTP/1.1 100") && !bytes.out.starts_with("HTTP/1.1 100") {
            assert_eq!(status(&whole), status(&bytes), "{request}");
        }
        whole
    }

    #[track_caller]
    fn get(&self, path: &str, lines: &str) -> Got {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: chat.example\r\n{lines}\r\n"))
    }

    #[track_caller]
    fn status(&self, request: &str) -> String {
        self.ask(request).status().to_owned()
    }
}

fn unpack(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut plain).expect("gzip");
    plain
}

#[test]
fn the_page_is_confirmed_and_its_parts_stay() {
    let server = Server::default();
    let page = server.get("/", "");
    assert_eq!((page.status(), page.is_last()), ("200", false));
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.header("cache-control"), Some("no-cache"));
    assert_eq!(page.header("vary"), Some("Accept-Encoding"));
    assert_eq!(page.header("content-encoding"), None);
    assert_eq!(page.header("date"), Some("Mon, 30 Nov 2026 10:00:00 GMT"));
    let length = page.header("content-length").map(|length| length.parse::<usize>().unwrap());
    assert_eq!(length, Some(page.body().len()));
    let html = String::from_utf8(page.body().to_vec()).unwrap();
    assert!(html.starts_with("<!doctype html>"), "{html}");
    assert!(!html.contains("%ASSETS%"), "{html}");

    let part = html.split('"').find(|text| text.starts_with("/a/") && text.ends_with(".js"));
    let part = server.get(part.expect("a part that the page names"), "Accept-Encoding: gzip\r\n");
    assert_eq!(part.status(), "200");
    assert_eq!(part.header("content-type"), Some("text/javascript; charset=utf-8"));
    assert_eq!(part.header("cache-control"), Some("public, max-age=31536000, immutable"));
    assert_eq!(part.header("vary"), Some("Accept-Encoding"));

    for path in ["/sw.js", "/manifest.webmanifest"] {
        let got = server.get(path, "");
        if got.status() == "200" {
            assert_eq!(got.header("cache-control"), Some("no-cache"), "{path}");
            assert!(got.header("etag").is_some());
            assert!(!String::from_utf8_lossy(got.body()).contains("%PARTS%"));
        }
    }
    for path in ["/a/", "/a/0123456789abcdef/app.js", "/index.html", "/nothing", "//", "/a/../"] {
        let got = server.get(path, "");
        assert_eq!((got.status(), got.is_last()), ("404", false), "{path}");
        assert_eq!(got.header("cache-control"), Some("no-store"));
    }
}

#[test]
fn who_has_the_page_gets_no_second_one() {
    let server = Server::default();
    let plain = server.get("/", "").header("etag").expect("an ETag").to_owned();
    let gzip = server.get("/", "Accept-Encoding: gzip\r\n");
    let gzip_tag = gzip.header("etag").expect("an ETag").to_owned();
    let brotli = server.get("/", "Accept-Encoding: br\r\n");
    let brotli_tag = brotli.header("etag").expect("an ETag").to_owned();
    assert!(plain != gzip_tag && plain != brotli_tag && gzip_tag != brotli_tag, "strong tags");
    let listed = format!("\"x\", {gzip_tag}");
    for known in [&plain, &gzip_tag, &brotli_tag, &format!("W/{plain}"), &listed] {
        let got = server.get("/", &format!("If-None-Match: {known}\r\n"));
        assert_eq!(got.status(), "304", "{known}");
        assert!(got.body().is_empty());
        assert_eq!(got.header("etag"), Some(plain.as_str()));
        assert_eq!(got.header("content-length"), None);
    }
    assert_eq!(server.get("/", "If-None-Match: *\r\n").status(), "304");
    for unknown in ["\"x\"", "x", "\"\"", "W/\"x\"", ""] {
        assert_eq!(server.get("/", &format!("If-None-Match: {unknown}\r\n")).status(), "200");
    }
}

#[test]
fn gzip_is_for_who_accepts_it() {
    let server = Server::default();
    let plain = server.get("/", "").body().to_vec();
    for accepted in ["gzip", "br;q=0, gzip", "GZIP;q=0.5", "*", "zstd, *;q=0.1", "gzip;q=1.0"] {
        let got = server.get("/", &format!("Accept-Encoding: {accepted}\r\n"));
        assert_eq!(got.header("content-encoding"), Some("gzip"), "{accepted}");
        assert_eq!(unpack(got.body()), plain);
    }
    for refused in ["", "zstd", "identity", "gzip;q=0", "gzip; q=0.000", "*;q=0", "*, gzip;q=0"] {
        let got = server.get("/", &format!("Accept-Encoding: {refused}\r\n"));
        assert_eq!(got.header("content-encoding"), None, "{refused}");
        assert_eq!(got.body(), plain);
    }
}

#[test]
fn brotli_is_for_clients_that_name_it() {
    let server = Server::default();
    let plain = server.get("/", "").body().to_vec();
    for accepted in ["br", "gzip, deflate, br, zstd", "BR;q=0.5, gzip", "*;q=0, br"] {
        let got = server.get("/", &format!("Accept-Encoding: {accepted}\r\n"));
        assert_eq!(got.header("content-encoding"), Some("br"), "{accepted}");
        let mut unpacked = Vec::new();
        brotli::BrotliDecompress(&mut &got.body()[..], &mut unpacked).expect("Brotli");
        assert_eq!(unpacked, plain);
    }
}

#[test]
fn head_is_the_head_of_what_get_gets() {
    let server = Server::default();
    for path in ["/", "/nothing", "/sw.js", "/ws"] {
        let get = server.get(path, "");
        let head = server.ask(&format!("HEAD {path} HTTP/1.1\r\nHost: chat.example\r\n\r\n"));
        let (of_get, _) = get.out.split_once("\r\n\r\n").unwrap();
        assert_eq!(head.out, format!("{of_get}\r\n\r\n"), "{path}");
    }
}

#[test]
fn every_answer_carries_what_keeps_browsers_safe() {
    let server = Server::default();
    for path in ["/", "/sw.js", "/nothing", "/ws"] {
        let got = server.get(path, "");
        let policy = got.header("content-security-policy").expect("a policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'; "));
        assert!(policy.ends_with("require-trusted-types-for 'script'; trusted-types sw"));
        assert!(policy.contains("frame-ancestors 'none'"));
        assert_eq!(got.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(got.header("referrer-policy"), Some("no-referrer"));
        assert_eq!(got.header("cross-origin-opener-policy"), Some("same-origin"));
        assert_eq!(got.header("cross-origin-resource-policy"), Some("same-origin"));
        let features = got.header("permissions-policy").expect("a policy");
        for feature in features.split(", ") {
            let (name, value) = feature.split_once('=').expect("a feature");
            let is_granted = matches!(name, "clipboard-write" | "fullscreen");
            assert_eq!(value, if is_granted { "(self)" } else { "()" }, "{name}");
        }
    }
}

#[test]
fn the_head_of_an_asset_is_short_and_safe() {
    let server = Server::default();
    let page = String::from_utf8(server.get("/", "").body().to_vec()).unwrap();
    let part = page.split('"').find(|text| text.starts_with("/a/")).expect("an asset");
    let got = server.get(part, "Accept-Encoding: br\r\n");
    let policy = "default-src 'none'; frame-ancestors 'none'";
    assert_eq!(got.header("content-security-policy"), Some(policy));
    assert_eq!(got.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(got.header("cross-origin-resource-policy"), Some("same-origin"));
    let length = got.out.find("\r\n\r\n").expect("a head");
    assert!(length < 550, "a head of {length} bytes");
}

#[test]
fn the_first_run_has_a_page_of_its_own() {
    let empty = Server { is_empty: true, ..Server::default() };
    let (first, later) = (empty.get("/", ""), Server::default().get("/", ""));
    assert_ne!(first.body(), later.body());
    assert!(!String::from_utf8_lossy(first.body()).contains("%EMPTY%"));
    assert_eq!(first.status(), "200");
    let tag = first.header("etag").unwrap();
    let got = Server::default().get("/", &format!("If-None-Match: {tag}\r\n"));
    assert_eq!(got.status(), "200", "a page that was kept from the first run is asked for anew");
}

#[test]
fn smuggling_gets_400_and_a_close() {
    let server = Server::default();
    let head = "POST /hook/t HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n";
    for (what, request) in [
        ("two lengths", format!("{head}Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc")),
        ("the same twice", format!("{head}Content-Length: 2\r\nContent-Length: 2\r\n\r\nab")),
        ("a list of lengths", format!("{head}Content-Length: 2, 2\r\n\r\nab")),
        ("a signed length", format!("{head}Content-Length: +2\r\n\r\nab")),
        ("a hex length", format!("{head}Content-Length: 0x2\r\n\r\nab")),
        ("no length", format!("{head}Content-Length:\r\n\r\nab")),
        ("both", format!("{head}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nab")),
        ("both", format!("{head}Transfer-Encoding: x\r\nContent-Length: 2\r\n\r\nab")),
        ("a bare LF", "GET / HTTP/1.1\nHost: a\r\n\r\n".to_owned()),
        ("a bare LF", "GET / HTTP/1.1\r\nHost: a\n\r\n".to_owned()),
        ("a bare LF", "GET / HTTP/1.1\r\nHost: a\r\nX: y\nZ: w\r\n\r\n".to_owned()),
        ("a bare LF at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n".to_owned()),
        ("a bare CR", "GET / HTTP/1.1\r\nHost: a\r\nX: y\rZ: w\r\n\r\n".to_owned()),
        ("a bare CR", "GET /\r HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("obs-fold", "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n".to_owned()),
        ("obs-fold", "GET / HTTP/1.1\r\nHost: a\r\n\tz: w\r\n\r\n".to_owned()),
        ("a space before the colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n".to_owned()),
        ("a space in a name", "GET / HTTP/1.1\r\nHost: a\r\nX Y: z\r\n\r\n".to_owned()),
        ("no colon", "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n".to_owned()),
        ("no name", "GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n".to_owned()),
        ("a NUL", "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n".to_owned()),
        ("absolute-form", "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("CONNECT", "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
        ("asterisk-form", "GET * HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("a fragment", "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("a space too many", "GET / x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("no version", "GET /\r\nHost: a\r\n\r\n".to_owned()),
        ("another protocol", "GET / FTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("a version of another form", "GET / HTTP/1.10\r\nHost: a\r\n\r\n".to_owned()),
        ("an empty line first", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("no Host", "GET / HTTP/1.1\r\n\r\n".to_owned()),
        ("two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n".to_owned()),
        ("a Host that is none", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".to_owned()),
        ("a Host with a user", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n".to_owned()),
        ("an empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n".to_owned()),
        ("GET with a body", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab".to_owned()),
        ("a path that is not ASCII", "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        (
            "1.0 with an encoding",
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
        ),
    ] {
        let got = server.ask(&request);
        assert_eq!(got.status(), "400", "{what}: {}", got.out);
        assert!(got.is_last(), "{what}");
    }
}

#[test]
fn heads_have_bounds() {
    let server = Server::default();
    let lines = |count: usize| "X: y\r\n".repeat(count);
    let start = "GET / HTTP/1.1\r\nHost: a\r\n";
    assert_eq!(server.status(&format!("{start}{}\r\n", lines(63))), "200");
    assert_eq!(server.status(&format!("{start}{}\r\n", lines(64))), "431");
    let longest = |bytes: usize| {
        let padding = "a".repeat(bytes - start.len() - "X: \r\n\r\n".len());
        format!("{start}X: {padding}\r\n\r\n")
    };
    assert_eq!(server.status(&longest(8 * 1024)), "200");
    let got = server.ask(&longest(8 * 1024 + 1));
    assert_eq!((got.status(), got.is_last()), ("431", true));
    // The limit applies before the end arrives.
    let got =
        server.ask(&"GET /".to_owned().chars().chain("a".repeat(9000).chars()).collect::<String>());
    assert_eq!((got.status(), got.is_last()), ("431", true));
}

#[test]
fn versions() {
    let server = Server::default();
    for version in ["2.0", "0.9", "3.0", "9.9"] {
        let got = server.ask(&format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n"));
        assert_eq!((got.status(), got.is_last()), ("505", true), "{version}");
    }
    let got = server.ask("GET / HTTP/1.0\r\n\r\n");
    assert_eq!((got.status(), got.is_last()), ("200", true), "no Host, no second request");
    let got = server.ask("GET / HTTP/1.9\r\nHost: a\r\n\r\n");
    assert_eq!((got.status(), got.is_last()), ("200", false));
    let got = server.get("/", "Connection: keep-alive, Close\r\n");
    assert_eq!((got.status(), got.is_last()), ("200", true));
}

#[test]
fn methods() {
    let server = Server::default();
    let ask = |method: &str, path: &str| {
        server.ask(&format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n"))
    };
    for (method, path, allow) in [
        ("POST", "/", "GET, HEAD"),
        ("OPTIONS", "/", "GET, HEAD"),
        ("DELETE", "/sw.js", "GET, HEAD"),
        ("POST", "/healthz", "GET, HEAD"),
        ("POST", "/public-url", "GET, HEAD"),
        ("PUT", "/ws", "GET"),
        ("M-SEARCH", "/", "GET, HEAD"),
        ("GET", "/hook/t", "POST"),
        ("HEAD", "/hook/t", "POST"),
    ] {
        let got = ask(method, path);
        assert_eq!(got.status(), "405", "{method} {path}");
        assert_eq!(got.header("allow"), Some(allow));
        assert!(!got.is_last());
    }
    // The body of such a request is not read.
    let got = server.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab");
    assert_eq!((got.status(), got.is_last()), ("405", true));
    assert_eq!(server.status("POST /nothing HTTP/1.1\r\nHost: a\r\n\r\n"), "404");
    assert_eq!(server.status("get / HTTP/1.1\r\nHost: a\r\n\r\n"), "400");
}

#[test]
fn requests_that_come_together_are_answered_in_order() {
    let server = Server::default();
    let all = "GET /nothing HTTP/1.1\r\nHost: a\r\n\r\nGET /ws HTTP/1.1\r\nHost: a\r\n\r\n\
               GET / HTTP/1.1\r\nHost: a\r\n\r\nPOST / HTTP/1.1\r\nHost: a\r\n\r\n";
    for cut in 0..all.len() {
        let (mut http, mut out, mut statuses) = (Http::default(), Vec::new(), Vec::new());
        let mut inbox = Vec::new();
        for piece in [&all[..cut], &all[cut..]] {
            inbox.extend_from_slice(piece.as_bytes());
            loop {
                out.clear();
                let used = match http.next(&inbox, &server.setting(), &mut out) {
                    Step::Answered(used) => used.bytes,
                    Step::Wait(used) => {
                        inbox.drain(..used);
                        break;
                    }
                    other => panic!("{other:?}"),
                };
                inbox.drain(..used);
                statuses.push(String::from_utf8_lossy(&out[9..12]).into_owned());
            }
        }
        assert_eq!(statuses, ["404", "426", "200", "405"], "cut at {cut}");
    }
}

#[test]
fn a_connection_is_http_by_its_first_bytes() {
    for (bytes, expected) in [
        (&b"GET / HTTP/1.1"[..], Some(true)),
        (b"HEAD", Some(true)),
        (b"POST /", Some(true)),
        (b"GE", None),
        (b"", None),
        (b"P", None),
        (b"PUT ", Some(false)),
        (b"GETX", Some(false)),
        (b"\x02\0\0\0\x20\x01\0\x01", Some(false)),
        (b"\x02", Some(false)),
        (b"PRI * HTTP/2.0", Some(false)),
    ] {
        assert_eq!(is_http(bytes), expected, "{bytes:?}");
    }
}

#[test]
fn a_websocket_begins_with_a_handshake() {
    let server = Server::default();
    let lines = "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let got = server.get("/ws", lines);
    assert!(matches!(got.step, Step::Upgrade(_)), "{}", got.out);
    assert_eq!(
        got.out,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    );
    let got = server.get("/ws?x=1", &format!("{lines}Sec-WebSocket-Protocol: chat, purpose\r\n"));
    assert_eq!(got.header("sec-websocket-protocol"), Some("purpose"));
    let got = server.get("/ws", &format!("{lines}Sec-WebSocket-Protocol: chat\r\n"));
    assert_eq!((got.status(), got.header("sec-websocket-protocol")), ("101", None));
    let got =
        server.get("/ws", &format!("{lines}Sec-WebSocket-Extensions: permessage-deflate\r\n"));
    assert_eq!((got.status(), got.header("sec-websocket-extensions")), ("101", None));
    // Bytes after the head belong to the WebSocket.
    let behind = format!("GET /ws HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    let (mut http, mut out) = (Http::default(), Vec::new());
    let with_frame = [behind.as_bytes(), b"\x82\x80\0\0\0\0"].concat();
    let step = http.next(&with_frame, &server.setting(), &mut out);
    let Step::Upgrade(used) = step else { panic!("{step:?}") };
    assert_eq!(used.bytes, behind.len());

    for (without, status) in [
        ("Upgrade: websocket\r\n", "426"),
        ("Connection: keep-alive, Upgrade\r\n", "426"),
        ("Sec-WebSocket-Version: 13\r\n", "426"),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "400"),
    ] {
        let got = server.get("/ws", &lines.replace(without, ""));
        assert_eq!(got.status(), status, "without {without}");
    }
    let got = server.get("/ws", &lines.replace("13", "8"));
    assert_eq!((got.status(), got.header("sec-websocket-version")), ("426", Some("13")));
    assert_eq!(server.get("/ws", &lines.replace("==", "=")).status(), "400");
    let twice = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    assert_eq!(server.get("/ws", &format!("{lines}{twice}")).status(), "400");
    let old = format!("GET /ws HTTP/1.0\r\nHost: a\r\n{lines}\r\n");
    assert_eq!(server.status(&old), "426");
}

#[test]
fn pages_of_other_origins_are_refused() {
    let origins = vec!["https://chat.example.org".parse().unwrap()];
    let server = Server { site: Site { origins, ..Site::default() }, ..Server::default() };
    let upgrade = |host: &str, lines: &str| {
        server.status(&format!(
            "GET /ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{lines}\r\n"
        ))
    };
    for (host, origin) in [
        ("a.example", "http://a.example"),
        ("a.example", "https://A.Example"),
        ("A.example:7420", "HTTP://a.example:7420"),
        ("[::1]:7420", "http://[::1]:7420"),
        ("b.example", "https://chat.example.org"),
        ("b.example", "https://CHAT.example.org"),
    ] {
        assert_eq!(upgrade(host, &format!("Origin: {origin}\r\n")), "101", "{origin}");
    }
    for (host, origin) in [
        ("a.example", "https://evil.example"),
        ("a.example", "https://a.example:8443"),
        ("a.example:7420", "http://a.example"),
        ("a.example", "https://a.example.evil"),
        ("a.example", "https://evil-a.example"),
        ("a.example", "http://a.example/"),
        ("a.example", "a.example"),
        ("a.example", "ftp://a.example"),
        ("a.example", "null"),
        ("a.example", ""),
        ("b.example", "http://chat.example.org"),
        ("b.example", "https://chat.example.org:443"),
    ] {
        assert_eq!(upgrade(host, &format!("Origin: {origin}\r\n")), "403", "{origin}");
    }
    let two = "Origin: http://a.example\r\nOrigin: http://evil.example\r\n";
    assert_eq!(upgrade("a.example", two), "403");
}

fn hook(lines: &str, body: &str) -> Got {
    let length = body.len();
    Server::default().ask(&format!(
        "POST /hook/0123abcd HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n{lines}\r\n{body}"
    ))
}

#[track_caller]
fn text_of(lines: &str, body: &str) -> String {
    let got = hook(lines, body);
    let Step::Hook(used, call) = got.step else { panic!("{body}: {}", got.out) };
    assert!(!used.exchange.is_last);
    assert_eq!(call.token, hook_digest("0123abcd"));
    call.text.to_string()
}

const TEXT: &str = "Content-Type: text/plain; charset=UTF-8\r\n";
const JSON: &str = "Content-Type: application/json\r\n";

#[test]
fn a_hook_is_text_or_json() {
    assert_eq!(text_of(TEXT, "the build is green"), "the build is green");
    assert_eq!(text_of(TEXT, "one\ntwo\n"), "one\ntwo", "as curl sends what echo wrote");
    assert_eq!(text_of("content-type: TEXT/PLAIN\r\n", "Привет"), "Привет");
    assert_eq!(text_of(JSON, r#"{"text": "hi", "channel": "x", "more": [1, {}]}"#), "hi");
    assert_eq!(text_of(JSON, "\u{FEFF}{\"text\": \"after a byte order mark\"}").len(), 23);
    let both =
        r#"{"text":"a","attachments":[{"title":"b","text":"c"},{"title":"","text":"d"},{}]}"#;
    assert_eq!(text_of(JSON, both), "a\nb\nc\nd");
    assert_eq!(text_of(JSON, r#"{"attachments":[{"fallback":"x","text":"only"}]}"#), "only");
    assert_eq!(text_of(JSON, r#"{"text":null,"attachments":[{"title":"t","text":null}]}"#), "t");
    for (lines, body) in [
        (TEXT, ""),
        (TEXT, "\n"),
        (TEXT, "a\0b"),
        (JSON, ""),
        (JSON, "{}"),
        (JSON, "[]"),
        (JSON, "\"text\""),
        (JSON, r#"{"text":"#),
        (JSON, r#"{"text":5}"#),
        (JSON, r#"{"text":""}"#),
        (JSON, r#"{"text":"a\u0000"}"#),
        (JSON, r#"{"text":"\ud800"}"#),
        (JSON, r#"{"attachments":[]}"#),
        (JSON, r#"{"content":"not ours"}"#),
        (JSON, r#"{"text":"a"} x"#),
        (JSON, r#"["hi",null]"#),
        (JSON, r#"{"attachments":[["t","x"]]}"#),
        (JSON, r#"{"attachments":{"text":"x"}}"#),
        (JSON, r#"{"attachments":[{"title":5}]}"#),
    ] {
        let got = hook(lines, body);
        assert_eq!((got.status(), got.is_last()), ("400", true), "{body}");
    }
    let deep = format!("{{\"x\":{}", "[".repeat(60_000));
    assert_eq!(hook(JSON, &deep).status(), "400");
    for lines in ["", "Content-Type: text/html\r\n", "Content-Type: text/plain; charset=koi8-r\r\n"]
    {
        assert_eq!(hook(lines, "x").status(), "415", "{lines}");
    }
    let length = "Content-Length: 3\r\n";
    let request = format!("POST /hook/t HTTP/1.1\r\nHost: a\r\n{TEXT}{length}\r\n");
    let bytes = [request.as_bytes(), b"a\xff\xfe"].concat();
    let got = Server::default().feed(&bytes, std::iter::once(usize::MAX));
    assert_eq!((got.status(), got.is_last()), ("400", true), "not UTF-8");
}

#[test]
fn members_that_are_not_read_may_be_anything() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    for ignored in [
        r#""fallback":"cut \ud83d""#.to_owned(),
        r#""\ud83d":1"#.to_owned(),
        r#""ts":1e999"#.to_owned(),
        r#""ts":-123456789012345678901234567890"#.to_owned(),
        format!(r#""fields":{}"#, nested(200)),
        format!(r#""fields":{}"#, nested(15_000)),
    ] {
        let body = format!(r#"{{{ignored},"text":"a","attachments":[{{{ignored},"title":"b"}}]}}"#);
        assert_eq!(text_of(JSON, &body), "a\nb", "{ignored:.40}");
    }
    // Of the body, a title is none of what is read; of an attachment, attachments.
    let swapped = r#"{"title":5,"text":"a","attachments":[{"attachments":5,"text":"b"}]}"#;
    assert_eq!(text_of(JSON, swapped), "a\nb");
    // It has to be JSON all the same.
    for broken in [r#""x":"\q""#, r#""x":[}"#, r#""x":tru"#, r#""x":01"#, r#"x:1"#] {
        let body = format!(r#"{{{broken},"text":"a"}}"#);
        assert_eq!(hook(JSON, &body).status(), "400", "{broken}");
    }
}

#[test]
fn what_services_send_to_a_slack_url_is_read() {
    // Uptime Kuma: a notification, and its test.
    let kuma = r##"{"text":"Uptime Kuma Alert\n[shop] [🔴 Down] connect ECONNREFUSED 10.0.0.5:443",
        "channel":"#ops","username":"kuma","icon_emoji":":warning:","attachments":[{"color":"#e01e5a",
        "blocks":[{"type":"header","text":{"type":"plain_text","text":"Uptime Kuma Alert"}},
        {"type":"section","fields":[{"type":"mrkdwn","text":"*Message*\nDown"}]}]}]}"##;
    let lines = "Content-Type: application/json\r\nUser-Agent: axios/0.28.1\r\n";
    let text = "Uptime Kuma Alert\n[shop] [🔴 Down] connect ECONNREFUSED 10.0.0.5:443";
    assert_eq!(text_of(lines, kuma), text);
    assert_eq!(text_of(lines, r#"{"text":"Testing","username":"kuma"}"#), "Testing");
    // Gitea: a push, and the deletion of a branch, which has no attachments.
    let gitea = r#"{"channel":"dev","text":"[<http://git/a/b|a/b>:<http://git/a/b/src|main>] 1 new commit pushed by anna",
        "username":"Gitea","icon_url":"","unfurl_links":0,"link_names":0,"attachments":[{"fallback":"",
        "color":"","title":"http://git/a/b","title_link":"http://git/a/b","text":"<http://git/c|2020558>: fix - anna"}]}"#;
    let text = "[<http://git/a/b|a/b>:<http://git/a/b/src|main>] 1 new commit pushed by anna\n\
                http://git/a/b\n<http://git/c|2020558>: fix - anna";
    assert_eq!(text_of(JSON, gitea), text);
    let deleted = r#"{"channel":"dev","text":"[a/b:old] branch deleted by anna","username":"Gitea",
        "icon_url":"","unfurl_links":0,"link_names":0,"attachments":null}"#;
    assert_eq!(text_of(JSON, deleted), "[a/b:old] branch deleted by anna");
    // Alertmanager sends only an attachment, without text.
    let alert = r##"{"channel":"#alerts","username":"Alertmanager","attachments":[{
        "title":"[FIRING:1] InstanceDown (web1 critical)","title_link":"http://am/#/alerts",
        "text":"web1 is down\nfor 5 minutes","fallback":"[FIRING:1] InstanceDown","callback_id":"",
        "footer":"","color":"danger","mrkdwn_in":["fallback","pretext","text"]}]}"##;
    let text = "[FIRING:1] InstanceDown (web1 critical)\nweb1 is down\nfor 5 minutes";
    assert_eq!(text_of(JSON, alert), text);
    let bare = r#"{"attachments":[{"title":"[RESOLVED] InstanceDown","text":"","fallback":"x",
        "callback_id":"","footer":""}]}"#;
    assert_eq!(text_of(JSON, bare), "[RESOLVED] InstanceDown");
    // Grafana.
    let grafana = r##"{"channel":"#alerts","username":"Grafana","attachments":[{"title":"[FIRING:1] DiskFull",
        "title_link":"http://grafana/alerting/list","text":"**Firing**\n\nValue: B=97\n","fallback":"[FIRING:1]",
        "fields":null,"footer":"Grafana v12.1.0","footer_icon":"https://x/y.png","color":"#D63232","ts":1796032800}]}"##;
    assert_eq!(text_of(JSON, grafana), "[FIRING:1] DiskFull\n**Firing**\n\nValue: B=97\n");
}

#[test]
fn bodies_have_bounds_and_a_length() {
    let server = Server::default();
    let post = |lines: &str, body: &str| {
        server.ask(&format!("POST /hook/t HTTP/1.1\r\nHost: a\r\n{TEXT}{lines}\r\n{body}"))
    };
    let got = post("", "");
    assert_eq!((got.status(), got.is_last()), ("411", true));
    let got = post("Transfer-Encoding: chunked\r\n", "0\r\n\r\n");
    assert_eq!((got.status(), got.is_last()), ("411", true));
    for length in ["65537", "99999999999", "99999999999999999999999999"] {
        let got = post(&format!("Content-Length: {length}\r\n"), "");
        assert_eq!((got.status(), got.is_last()), ("413", true), "{length}");
    }
    let longest = "x".repeat(65_536);
    let got = server.feed(
        format!("POST /hook/t HTTP/1.1\r\nHost: a\r\n{TEXT}Content-Length: 65536\r\n\r\n{longest}")
            .as_bytes(),
        std::iter::repeat(1000),
    );
    let Step::Hook(used, call) = got.step else { panic!("{}", got.out) };
    assert_eq!((used.bytes, call.text.len()), (65_536, 65_536), "the head was done with before");
}

#[test]
fn a_body_that_waits_to_be_asked_for_is() {
    let server = Server::default();
    let head = format!(
        "POST /hook/t HTTP/1.1\r\nHost: a\r\n{TEXT}Content-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    );
    let (mut http, mut out) = (Http::default(), Vec::new());
    let step = http.next(head.as_bytes(), &server.setting(), &mut out);
    assert_eq!(step, Step::Wait(head.len()));
    assert!(http.expects_body());
    assert_eq!(out, b"HTTP/1.1 100 Continue\r\n\r\n");
    let step = http.next(b"hi", &server.setting(), &mut out);
    assert!(matches!(step, Step::Hook(_, _)));
    assert!(!http.expects_body());
    out.clear();
    let whole = format!("{head}hi");
    http.next(whole.as_bytes(), &server.setting(), &mut out);
    assert!(out.is_empty(), "it came unasked");
}

#[test]
fn metrics_on_loopback_are_for_local_names() {
    let url = "https://chat.example.org:8443".parse().unwrap();
    let site = Site { public_url: Some(url), ..Site::default() };
    let local = Server { site, surface: Surface::LocalMetrics, is_empty: false };
    let ask = |server: &Server, host: &str, path: &str| {
        server.ask(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
    };
    for host in [
        "127.0.0.1:9420",
        "localhost",
        "LOCALHOST:1",
        "a.localhost",
        "[::1]:9420",
        "10.0.0.1",
        "Chat.example.org",
    ] {
        let got = ask(&local, host, "/metrics?name=x");
        assert!(matches!(got.step, Step::Metrics(_)), "{host}: {}", got.out);
    }
    for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example"] {
        assert_eq!(ask(&local, host, "/metrics").status(), "403", "{host}");
    }
    let public = Server { surface: Surface::Metrics, ..Server::default() };
    assert!(matches!(ask(&public, "metrics.example", "/metrics").step, Step::Metrics(_)));
    for path in ["/", "/ws", "/healthz", "/public-url", "/hook/t"] {
        assert_eq!(ask(&public, "a", path).status(), "404", "{path}");
    }
    let got = public.ask("POST /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((got.status(), got.header("allow")), ("405", Some("GET, HEAD")));
    assert_eq!(Server::default().get("/metrics", "").status(), "404");
}

#[test]
fn the_browser_client_learns_where_links_begin() {
    let url = "https://chat.example.org:8443/".parse().unwrap();
    let site = Site { public_url: Some(url), ..Site::default() };
    let got = Server { site, ..Server::default() }.get("/public-url", "");
    assert_eq!((got.status(), got.body()), ("200", &b"https://chat.example.org:8443\n"[..]));
    assert_eq!(got.header("cache-control"), Some("no-store"));
    let got = Server::default().get("/public-url", "");
    assert_eq!((got.status(), got.body()), ("204", &b""[..]));
}

#[test]
fn what_needs_the_server_is_answered_by_it() {
    let got = Server::default().get("/healthz", "");
    let Step::Health(used) = got.step else { panic!("{}", got.out) };
    let mut out = Vec::new();
    used.exchange.answer(&Answer::text(Status::Ok, "ok"), &mut out);
    let text = String::from_utf8(out).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\nok\n"), "{text}");
    assert!(text.contains("\r\nCache-Control: no-store\r\n"), "{text}");

    let mut out = Vec::new();
    put_last(Status::Unavailable, "too many connections", Some(10), WALL_US, &mut out);
    let text = String::from_utf8(out).unwrap();
    assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{text}");
    assert!(text.contains("\r\nRetry-After: 10\r\n") && text.contains("\r\nConnection: close\r\n"));
    let mut out = Vec::new();
    used.exchange.answer(&Answer::text(Status::NoContent, ""), &mut out);
    let text = String::from_utf8(out).unwrap();
    assert!(text.ends_with("\r\n\r\n") && !text.contains("\r\nContent-Length"), "{text}");
}
