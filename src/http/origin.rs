//! The check of which web pages may open a WebSocket (protocol section 9).

use crate::http::Site;
use crate::http::request::Request;

/// Whether the Origin of a request, if it has one, is the server's own or allowed.
///
/// Only browsers send it, and a page cannot forge it.
pub(super) fn is_allowed(request: &Request<'_>, site: &Site) -> bool {
    let origin = match request.value("origin") {
        Ok(None) => return true,
        Ok(Some(origin)) => origin,
        Err(_) => return false,
    };
    let is_named = |named: &str| origin.eq_ignore_ascii_case(named);
    if site.origins.iter().any(|allowed| is_named(allowed.as_str())) {
        return true;
    }
    let Ok(Some(host)) = request.value("host") else { return false };
    let authority = ["http://", "https://"].into_iter().find_map(|scheme| {
        let (start, rest) = origin.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    });
    authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
}
