//! The part of the configuration that the service uses.

use crate::config::{InvitesBy, PushContent, Registration, UserList};
use crate::limits;

/// Microseconds in a day.
pub const DAY_US: i64 = 24 * 3600 * 1_000_000;

/// What an operator configures of the service.
#[derive(Clone, Debug)]
pub struct ServiceConfig {
    /// Longest body of a frame to the server, in bytes; HELLO returns it.
    pub body_bytes_max: usize,
    /// Longest content of a message, in bytes.
    pub content_bytes_max: usize,
    /// Bytes that may wait for one connection before notifications go to its backlog.
    pub outbound_bytes_max: usize,
    /// Bytes that may wait for all connections together, approximately.
    pub memory_bytes_max: usize,
    /// Microseconds after which an unused session ends.
    pub session_lifetime_us: i64,
    /// PBKDF2 rounds for new passwords.
    pub password_rounds: u32,
    /// Who may register.
    pub registration: Registration,
    /// Who may create invites that allow registration.
    pub invites_by: InvitesBy,
    /// Who may search for users by name.
    pub user_list: UserList,
    /// Whether clients may subscribe to pushes.
    pub push: bool,
    /// Hosts that pushes may be sent to; an entry with a leading dot stands for all hosts below it.
    pub push_hosts: Vec<String>,
    /// How much of a message a push contains.
    pub push_content: PushContent,
    /// Base address of the links in pushes; `None`: no links.
    pub push_site: Option<String>,
    /// Messages that one user may send or edit per second; 0: no limit.
    pub sends_per_second: u32,
    /// Bytes of text that one user may send or edit per day of UTC; 0: no limit.
    pub user_bytes_per_day: u64,
    /// Largest file, in bytes; 0: no files.
    pub file_bytes_max: u64,
    /// Bytes of files that one user may have,
    pub user_files_bytes_max: u64,
    /// and all users together.
    pub files_bytes_max: u64,
    /// Bytes that uploads must leave free on the disk.
    pub disk_reserve_bytes: u64,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self {
            body_bytes_max: limits::BODY_BYTES_MAX,
            content_bytes_max: limits::CONTENT_BYTES_MAX,
            outbound_bytes_max: limits::OUTBOUND_BYTES_MAX,
            memory_bytes_max: limits::MEMORY_BYTES_MAX,
            session_lifetime_us: i64::from(limits::SESSION_DAYS) * DAY_US,
            password_rounds: limits::PASSWORD_ITERATIONS,
            registration: Registration::Closed,
            invites_by: InvitesBy::Operators,
            user_list: UserList::All,
            push: false,
            push_hosts: Vec::new(),
            push_content: PushContent::Full,
            push_site: None,
            sends_per_second: 0,
            user_bytes_per_day: limits::USER_TEXT_BYTES_PER_DAY,
            file_bytes_max: limits::FILE_BYTES_MAX,
            user_files_bytes_max: limits::USER_FILES_BYTES_MAX,
            files_bytes_max: limits::FILES_BYTES_MAX,
            disk_reserve_bytes: limits::DISK_RESERVE_BYTES,
        }
    }
}
