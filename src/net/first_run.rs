//! The first start: a link with which the operator creates the first account.

use std::net::{IpAddr, SocketAddr};

use crate::auth::random::RandomSource;
use crate::auth::token::InviteCode;
use crate::config::Config;
use crate::ids::ServerTime;
use crate::net::listener::{Listener, Port};
use crate::service::DAY_US;
use crate::store::invites::Invite;
use crate::store::{Store, StoreResult};

/// Creates an invite when the database has no users: one use, valid for a day, its user becomes an
/// operator. It replaces the invite of an earlier start, which goes, too, when there are users.
pub(super) fn first_invite(
    store: &mut Store<'_>,
    random: &dyn RandomSource,
    wall_us: i64,
) -> Result<Option<InviteCode>, String> {
    if store.has_users().map_err(|e| e.to_string())? {
        // They are good for nothing already, so that a full disk is no reason to complain here.
        if remove_void(store).is_err() {
            store.roll_back();
        }
        return Ok(None);
    }
    let code = InviteCode::generate(random).map_err(|e| e.to_string())?;
    let time = |us: i64| ServerTime::new(us.max(0)).unwrap_or(ServerTime::MAX);
    let invite = Invite {
        hint: code.hint(),
        uses_left: 1,
        expires: time(wall_us.saturating_add(DAY_US)),
        created: time(wall_us),
        registers: true,
        operator: true,
        chat: None,
        creator: None,
    };
    let stored = store
        .remove_first_invites()
        .and_then(|()| store.add_invite(&code.digest().0, &invite))
        .and_then(|()| store.commit());
    match stored {
        Ok(_) => Ok(Some(code)),
        Err(error) => {
            store.roll_back();
            Err(error.to_string())
        }
    }
}

/// Removes the invites of earlier starts, which users have made void.
fn remove_void(store: &mut Store<'_>) -> StoreResult<()> {
    // Most starts find none, and need not write.
    if store.has_first_invites()? {
        store.remove_first_invites()?;
        store.commit()?;
    }
    Ok(())
}

/// The line that explains how to create the first user.
pub(super) fn describe(code: &InviteCode, config: &Config, listeners: &[Listener]) -> String {
    let code = code.expose();
    match site(config, listeners) {
        Some(site) => format!(
            "no users yet: create the first one, an operator, at {site}/#invite={code} (one use, 24 \
             hours)"
        ),
        None => format!(
            "no users yet: register the first one, an operator, with the invite {code} (one use, \
             24 hours)"
        ),
    }
}

/// The address of the web client for a browser: as configured, or on this machine.
fn site(config: &Config, listeners: &[Listener]) -> Option<String> {
    if !config.web {
        return None;
    }
    if let Some(url) = &config.public_url {
        return Some(url.to_string());
    }
    let scheme = |listener: &Listener| match listener.port {
        Port::Plain => Some("http"),
        Port::Tls => Some("https"),
        Port::Metrics => None,
    };
    let (scheme, listener) =
        listeners.iter().find_map(|listener| Some((scheme(listener)?, listener)))?;
    Some(format!("{scheme}://{}", reachable(listener.socket.local_addr().ok()?)))
}

/// An address that reaches a bound one from this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(ip) if ip.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_names_an_address_that_can_be_reached() {
        for (bound, reached) in [
            ("0.0.0.0:7420", "127.0.0.1:7420"),
            ("[::]:7420", "[::1]:7420"),
            ("192.168.1.5:1", "192.168.1.5:1"),
        ] {
            assert_eq!(reachable(bound.parse().unwrap()).to_string(), reached);
        }
    }
}
