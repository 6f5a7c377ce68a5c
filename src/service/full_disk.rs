//! Operation on a full disk: only requests that free space or block a user may write.
//!
//! When a turn fails for lack of space, the store releases its reserve file. Until the disk has
//! enough space again, only small requests that free space or block a user may use it;
//! everything else is declined.

use crate::service::peer::Intent;
use crate::service::{HandlerResult, Service};
use crate::store::Store;
use crate::wire::decline::Decline;
use crate::wire::purpose::ToServer;

/// Whether the disk is full, and whether the request in progress may use the reserve.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FullDisk {
    pub(super) is_full: bool,
    pub(super) may_use_reserve: bool,
}

/// Requests that free space, block a user, or let in an admin who does.
const fn may_use_reserve(purpose: ToServer) -> bool {
    matches!(
        purpose,
        ToServer::Login
            | ToServer::Logoff
            | ToServer::EndSession
            | ToServer::ChangePassword
            | ToServer::LeaveChat
            | ToServer::DeleteChat
            | ToServer::SetChatPassword
            | ToServer::SetChatBan
            | ToServer::SetChatClosed
            | ToServer::SetUserDisabled
            | ToServer::EndInvite
            | ToServer::DeleteMsg
            | ToServer::EndFile
    )
}

/// Logs that the disk is full, and what that means.
pub(super) fn log_full() {
    log::error!(
        "the disk is full: only requests that free space or block a user may write until {} MiB \
         are free",
        Store::FREE_BYTES_MIN / (1024 * 1024)
    );
}

impl Service<'_> {
    /// Notes the purpose of the request that is handled next.
    pub(super) const fn note_purpose(&mut self, purpose: ToServer) {
        self.storage.full_disk.may_use_reserve = may_use_reserve(purpose);
    }

    /// The same, for a request whose password work is done.
    pub(super) const fn note_intent(&mut self, intent: &Intent) {
        self.storage.full_disk.may_use_reserve = matches!(
            intent,
            Intent::Login { .. }
                | Intent::HashNewPassword
                | Intent::CompareChatPassword { .. }
                | Intent::SetChatPassword { .. }
        );
    }

    /// Declines a request that may not write on a full disk.
    pub(super) fn check_space(&self) -> HandlerResult {
        if self.storage.full_disk.is_full && !self.storage.full_disk.may_use_reserve {
            return Err(Decline::StorageFailed.into());
        }
        Ok(())
    }

    /// Notes that a turn failed for lack of space.
    pub(super) fn note_full_disk(&mut self) {
        let was_given_up = self.store.give_up_reserve();
        self.note_given_up(was_given_up);
    }

    fn note_given_up(&mut self, was_given_up: bool) {
        if was_given_up {
            self.storage.full_disk.is_full = true;
            log_full();
        }
    }

    /// Checks the free space before a request fails for it, and notices when there is enough again.
    pub(super) fn poll_free_space(&mut self) {
        let was_given_up = self.store.give_up_reserve_when_full();
        self.note_given_up(was_given_up);
        let was_full = self.storage.full_disk.is_full;
        self.storage.full_disk.is_full = !self.store.hold_reserve();
        if was_full && !self.storage.full_disk.is_full {
            log::info!("the disk has space again");
        }
    }
}
