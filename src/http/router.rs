//! The router: from a request to its route.

use std::net::IpAddr;

use crate::http::assets;
use crate::http::hook::Format;
use crate::http::request::{Method, Request};
use crate::http::response::{Answer, Status};
use crate::http::upgrade;
use crate::http::{Setting, Site};

/// The kind of a listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Surface {
    /// The browser client, WebSocket, hooks.
    Public,
    /// Metrics, for any host name.
    Metrics,
    /// Metrics on loopback, which a page of another site must not reach under a host name of its
    /// own.
    LocalMetrics,
}

/// What to do for a request.
#[derive(Debug)]
pub(super) enum Route<'a> {
    /// Send this answer.
    Answer(Answer<'a>),
    /// Report whether the server is healthy.
    Health,
    /// Render the metrics.
    Metrics,
    /// Upgrade to a WebSocket.
    Upgrade { accept: String, has_protocol: bool },
    /// Read a body for the bot with this token.
    Hook { token: &'a str, format: Format },
}

/// Finds the route of a request.
pub(super) fn route<'a>(request: &Request<'a>, setting: &Setting<'_>) -> Route<'a> {
    match setting.surface {
        Surface::Public => public(request, setting),
        Surface::LocalMetrics if !is_local_name(request, setting.site) => {
            Route::Answer(Answer::text(
                Status::Forbidden,
                "metrics on loopback must be requested by the address or a local name",
            ))
        }
        Surface::Metrics | Surface::LocalMetrics => match request.path {
            "/metrics" => read_only(request, Route::Metrics),
            _ => Route::Answer(Answer::status(Status::NotFound)),
        },
    }
}

fn public<'a>(request: &Request<'a>, setting: &Setting<'_>) -> Route<'a> {
    if let Some(token) = request.path.strip_prefix("/hook/") {
        return hook(request, token);
    }
    match request.path {
        "/healthz" => read_only(request, Route::Health),
        "/public-url" => read_only(request, Route::Answer(public_url(setting.site))),
        "/ws" => match request.method {
            Method::Get | Method::Head => match upgrade::check(request, setting.site) {
                Ok((accept, has_protocol)) => Route::Upgrade { accept, has_protocol },
                Err(answer) => Route::Answer(answer),
            },
            _ => not_allowed("GET"),
        },
        path => match assets::find(path) {
            Some(asset) => {
                read_only(request, Route::Answer(asset.answer(request, setting.is_empty)))
            }
            None => Route::Answer(Answer::status(Status::NotFound)),
        },
    }
}

/// Where links begin, for the browser client: it may be open at another address.
fn public_url(site: &Site) -> Answer<'static> {
    match &site.public_url {
        Some(url) => Answer::text(Status::Ok, url.as_str()),
        None => Answer::status(Status::NoContent),
    }
}

fn hook<'a>(request: &Request<'a>, token: &'a str) -> Route<'a> {
    if request.method != Method::Post {
        return not_allowed("POST");
    }
    match Format::of(request) {
        Some(format) => Route::Hook { token, format },
        None => Route::Answer(Answer::status(Status::UnsupportedMediaType)),
    }
}

fn read_only<'a>(request: &Request<'_>, route: Route<'a>) -> Route<'a> {
    match request.method {
        Method::Get | Method::Head => route,
        Method::Post | Method::Other => not_allowed("GET, HEAD"),
    }
}

fn not_allowed(allow: &'static str) -> Route<'static> {
    Route::Answer(Answer { allow: Some(allow), ..Answer::status(Status::MethodNotAllowed) })
}

/// Whether the Host is an address, localhost or the server's own site. A page of another site
/// cannot have sent such a request.
fn is_local_name(request: &Request<'_>, site: &Site) -> bool {
    let Ok(Some(authority)) = request.value("host") else {
        // Only HTTP/1.0 may omit Host, and no browser uses that.
        return request.is_old;
    };
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    let host = host.to_ascii_lowercase();
    let is_public = site.public_url.as_ref().is_some_and(|url| {
        url.authority().split(':').next().is_some_and(|name| !name.starts_with('[') && name == host)
    });
    host.parse::<IpAddr>().is_ok()
        || host == "localhost"
        || host.ends_with(".localhost")
        || is_public
}
