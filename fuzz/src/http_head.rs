//! Heads and bodies of HTTP requests: cut anywhere they come to the same, what is used is never
//! more than what there is, and what is not understood closes.

use std::net::{IpAddr, Ipv4Addr};

use vestnik::http::{Http, Setting, Site, Step, Surface, is_http};

use super::input::Input;

/// What a stream of requests comes to: the steps, and everything that is answered.
type Outcome = (Vec<String>, Vec<u8>);

/// `data`: the listener, how to cut, and the stream.
pub fn http_head(data: &[u8]) {
    let mut input = Input::new(data);
    let site = Site {
        origins: vec!["https://chat.example.org".parse().expect("an origin")],
        trusted: vec!["127.0.0.0/8".parse().expect("a network")],
        public_url: "https://chat.example.org".parse().ok(),
    };
    let setting = Setting {
        site: &site,
        surface: input.pick(&[Surface::Public, Surface::Public, Surface::LocalMetrics]),
        socket: IpAddr::V4(Ipv4Addr::new(127, 0, 0, input.pick(&[1, 2]))),
        is_empty: input.below(2) == 1,
        wall_us: 1_796_032_800_000_000,
    };
    let cuts = input.bytes(8);
    let stream = input.rest();
    let whole = read(&setting, &[stream]);
    assert_eq!(read(&setting, &super::frames::cut(stream, cuts)), whole, "cut otherwise");
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(read(&setting, &bytes), whole, "byte by byte");
    let _ = is_http(stream);
}

/// Reads as the engine does: what came is appended to what was left over.
fn read(setting: &Setting<'_>, pieces: &[&[u8]]) -> Outcome {
    let (mut http, mut inbox, mut out) = (Http::default(), Vec::new(), Vec::new());
    let mut steps = Vec::new();
    for piece in pieces {
        inbox.extend_from_slice(piece);
        loop {
            let before = out.len();
            let step = http.next(&inbox, setting, &mut out);
            // A body that came with its head is not asked for.
            if out[before..].starts_with(b"HTTP/1.1 100 ") {
                out.truncate(before);
            }
            let (mut used, name) = match step {
                Step::Wait(bytes) => {
                    assert_eq!(out.len(), before, "an answer to nothing");
                    assert!(bytes <= inbox.len());
                    inbox.drain(..bytes);
                    break;
                }
                Step::Answered(used) => {
                    assert!(out[before..].starts_with(b"HTTP/1.1 "));
                    (used, "answered".to_owned())
                }
                Step::Upgrade(used) => {
                    assert!(out[before..].starts_with(b"HTTP/1.1 101 "));
                    steps.push("upgrade".to_owned());
                    let _ = used;
                    return (steps, out);
                }
                Step::Hook(used, call) => {
                    assert!(!call.text.is_empty() && !call.text.contains('\0'));
                    (used, format!("hook {}", call.text.as_str()))
                }
                Step::Health(used) => (used, "health".to_owned()),
                Step::Metrics(used) => (used, "metrics".to_owned()),
            };
            assert!(used.bytes > 0 && used.bytes <= inbox.len(), "it makes no progress");
            steps.push(format!("{name} {:?}", used.peer));
            if used.exchange.is_last {
                return (steps, out);
            }
            inbox.drain(..std::mem::take(&mut used.bytes));
        }
        assert!(inbox.len() <= 8 * 1024 || http.expects_body(), "a head without end is kept");
    }
    (steps, out)
}
