//! What works while the disk is full.
//!
//! When a turn fails for want of space, the store gives up the space that it keeps for that. From
//! then on only requests that free space or keep somebody out may write, until the disk has enough
//! again: they are small, and nothing else may take what is left.

use crate::service::peer::Intent;
use crate::service::{HandlerResult, Service};
use crate::wire::decline::Decline;
use crate::wire::purpose::ToServer;

/// Whether the disk is full, and what the request under way may do about it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FullDisk {
    pub(super) is_full: bool,
    pub(super) may_use_reserve: bool,
}

/// Requests that free space, keep somebody out, or let in an admin who does.
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
            | ToServer::DeleteMsg
    )
}

impl Service<'_> {
    /// A request with this purpose is handled from now on.
    pub(super) const fn note_purpose(&mut self, purpose: ToServer) {
        self.storage.full_disk.may_use_reserve = may_use_reserve(purpose);
    }

    /// The same, for one whose password work is done.
    pub(super) const fn note_intent(&mut self, intent: &Intent) {
        self.storage.full_disk.may_use_reserve = matches!(
            intent,
            Intent::Login { .. }
                | Intent::HashNewPassword
                | Intent::CompareChatPassword { .. }
                | Intent::SetChatPassword { .. }
        );
    }

    /// That the request under way may write, as far as the disk has space for it.
    pub(super) fn check_space(&self) -> HandlerResult {
        if self.storage.full_disk.is_full && !self.storage.full_disk.may_use_reserve {
            return Err(Decline::StorageFailed.into());
        }
        Ok(())
    }

    /// A turn has failed for want of space.
    pub(super) fn note_full_disk(&mut self) {
        let was_given_up = self.store.give_up_reserve();
        self.note_given_up(was_given_up);
    }

    fn note_given_up(&mut self, was_given_up: bool) {
        if was_given_up {
            self.storage.full_disk.is_full = true;
            log::error!(
                "the disk is full: only what frees space or keeps somebody out is written until \
                 there is more"
            );
        }
    }

    /// Looks whether the disk is full, before somebody's request fails for it, or has space again.
    pub(super) fn look_for_space(&mut self) {
        let was_given_up = self.store.give_up_reserve_when_full();
        self.note_given_up(was_given_up);
        let was_full = self.storage.full_disk.is_full;
        self.storage.full_disk.is_full = !self.store.hold_reserve();
        if was_full && !self.storage.full_disk.is_full {
            log::info!("the disk has space again");
        }
    }
}
