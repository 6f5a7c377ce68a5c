//! Black-box tests: the real binary in a temporary folder, driven over sockets, pipes, terminals.
//!
//! All tests are one crate, so that it links once. `cargo test --test server NAME` runs the tests
//! whose path contains NAME (a file is a module: `cargo test --test server api10_search`).
#![allow(
    clippy::disallowed_methods,
    reason = "tests stand outside of the server: they read the clock and start threads"
)]

mod acme;
mod api01_chats;
mod api01_durability;
mod api01_frames;
mod api01_limits;
mod api01_messages;
mod api01_sessions;
mod api01_states;
mod api10_accounts;
mod api10_chats;
mod api10_codes;
mod api10_forms;
mod api10_messages;
mod api10_notifications;
mod api10_search;
mod api11_accounts;
mod api11_chats;
mod api11_files;
mod api11_invites;
mod api11_permissions;
mod api11_reactions;
mod api11_replies;
mod api11_versions;
mod arbitrary;
mod bounded;
mod checkpoints;
mod cli;
mod cli_data;
mod cli_people;
mod client;
mod client_cli;
mod client_newer;
mod client_screen;
mod clock;
mod corpus;
mod damage;
mod docs;
mod echo_bot;
mod erasure;
mod faults;
mod first_run;
mod floods;
mod full_disk;
mod guards;
mod held_lock;
mod hook_cli;
mod hooks;
mod http;
mod load;
mod moderation;
mod paths;
mod push;
mod read_only;
mod replaced_files;
mod resources;
mod search;
mod secrecy;
mod security_doc;
mod stats;
mod support;
mod terminal_chat;
mod tls;
mod tls_scan;
mod transfer;
mod transports;
mod unread;
mod user_limits;
mod websocket;
mod wrong_uses;
