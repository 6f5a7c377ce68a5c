//! The little of HTTP/1.1 that one page needs: the head of a request in, an answer out that ends the
//! connection.

/// What the answer says of the request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Status {
    Ok,
    /// It cannot be understood.
    Bad,
    /// Another page is asked for.
    NotFound,
    /// Another method than GET.
    NotAllowed,
    /// Its head has no end within reason.
    TooLong,
}

impl Status {
    const fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::Bad => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::NotAllowed => "405 Method Not Allowed\r\nAllow: GET",
            Self::TooLong => "431 Request Header Fields Too Large",
        }
    }
}

/// Judges a request by its first line, once its head is whole.
pub(super) fn judge(request: &[u8]) -> Option<Status> {
    let is_whole = [&b"\r\n\r\n"[..], b"\n\n"]
        .into_iter()
        .any(|end| request.windows(end.len()).any(|bytes| bytes == end));
    if !is_whole {
        return None;
    }
    let line = request.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let mut words = line.trim_ascii_end().split(|&byte| byte == b' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let is_http = version.is_some_and(|version| version.starts_with(b"HTTP/1."));
    if !is_http || words.next().is_some() {
        return Some(Status::Bad);
    }
    let path = target.and_then(|target| target.split(|&byte| byte == b'?').next());
    Some(match (method, path) {
        (Some(b"GET"), Some(b"/metrics")) => Status::Ok,
        (Some(b"GET"), _) => Status::NotFound,
        _ => Status::NotAllowed,
    })
}

/// The whole answer.
pub(super) fn answer(status: Status, page: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{page}",
        status.line(),
        page.len()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_judged_by_its_first_line_once_it_is_whole() {
        let judged = |request: &str| judge(request.as_bytes());
        assert_eq!(judged("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"), Some(Status::Ok));
        assert_eq!(judged("GET /metrics?name=x HTTP/1.0\n\n"), Some(Status::Ok));
        assert_eq!(judged("GET / HTTP/1.1\r\n\r\n"), Some(Status::NotFound));
        assert_eq!(judged("POST /metrics HTTP/1.1\r\n\r\n"), Some(Status::NotAllowed));
        assert_eq!(judged("GET /metrics\r\n\r\n"), Some(Status::Bad));
        assert_eq!(judged("GET /metrics FTP/1.1\r\n\r\n"), Some(Status::Bad));
        assert_eq!(judged("GET /metrics HTTP/1.1 x\r\n\r\n"), Some(Status::Bad));
        assert_eq!(judged("\r\n\r\n"), Some(Status::Bad));
        for cut in 0..25 {
            assert_eq!(judged(&"GET /metrics HTTP/1.1\r\n\r\n"[..cut.min(24)]), None, "{cut}");
        }
    }

    #[test]
    fn an_answer_tells_its_length() {
        let text = String::from_utf8(answer(Status::Ok, "a 1\n")).expect("text");
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(text.contains("\r\nContent-Length: 4\r\n"), "{text}");
        assert!(text.ends_with("\r\n\r\na 1\n"), "{text}");
    }
}
