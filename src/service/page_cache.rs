//! When SQLite's page cache is large: only while users make many requests.
//!
//! On a small machine its memory is missing elsewhere, and connections that are only open need none
//! of it: each login leaves 340 bytes of pages in a large cache. A page that is missing costs about
//! a microsecond, since the system has it. See decision 004.

use crate::metrics::Metrics;
use crate::store::open::{PAGE_CACHE_KIB_MAX, PAGE_CACHE_KIB_MIN};
use crate::wire::purpose::{Needs, ToServer};

/// Requests of users between two slices of housekeeping (a quarter of a second, or less) from which
/// on the cache is large.
const REQUESTS_MIN: u64 = 100;
/// Milliseconds with fewer requests after which it is small again.
const QUIET_MS: u64 = 60_000;

/// The size of the page cache. It is small at the start.
#[derive(Default)]
pub(super) struct PageCache {
    is_large: bool,
    /// Requests of users until the last slice of housekeeping.
    requests: u64,
    /// When there were last many, in milliseconds.
    busy_ms: u64,
}

impl PageCache {
    /// The new size in KiB, if it changes. Call it in each slice of housekeeping.
    pub(super) fn next_kib(&mut self, metrics: &Metrics, now_ms: u64) -> Option<u32> {
        let of_users = ToServer::ALL.iter().filter(|purpose| purpose.needs() == Needs::Session);
        let requests = of_users.map(|purpose| metrics.frames_received_of(purpose.byte())).sum();
        let new = requests - std::mem::replace(&mut self.requests, requests);
        if new >= REQUESTS_MIN {
            self.busy_ms = now_ms;
        }
        let was_large = self.is_large;
        self.is_large =
            new >= REQUESTS_MIN || was_large && now_ms.saturating_sub(self.busy_ms) < QUIET_MS;
        let kib = if self.is_large { PAGE_CACHE_KIB_MAX } else { PAGE_CACHE_KIB_MIN };
        (self.is_large != was_large).then_some(kib)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_cache_is_large_while_users_make_many_requests() {
        let (mut cache, mut metrics) = (PageCache::default(), Metrics::default());
        let ask = |metrics: &mut Metrics, purpose: ToServer, times: u64| {
            (0..times).for_each(|_| metrics.frame_received(purpose.byte()));
        };
        ask(&mut metrics, ToServer::Login, 5_000);
        ask(&mut metrics, ToServer::GetMyChats, REQUESTS_MIN - 1);
        assert_eq!(cache.next_kib(&metrics, 0), None);
        ask(&mut metrics, ToServer::SendChatMsg, REQUESTS_MIN);
        assert_eq!(cache.next_kib(&metrics, 250), Some(PAGE_CACHE_KIB_MAX));
        assert_eq!(cache.next_kib(&metrics, 500), None);
        ask(&mut metrics, ToServer::SendChatMsg, REQUESTS_MIN);
        assert_eq!(cache.next_kib(&metrics, 50_000), None);
        assert_eq!(cache.next_kib(&metrics, 50_000 + QUIET_MS - 1), None);
        assert_eq!(cache.next_kib(&metrics, 50_000 + QUIET_MS), Some(PAGE_CACHE_KIB_MIN));
        assert_eq!(cache.next_kib(&metrics, 200_000), None);
    }
}
