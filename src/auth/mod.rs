//! Authentication: passwords, session secrets, invite codes, and rate limits on guesses.
//!
//! Owns the form of all secrets, at rest and in memory. It knows no clock, sockets or database:
//! time and randomness are arguments, and stored forms are passed as values.

pub mod helper;
pub mod password;
pub mod random;
pub mod throttle;
pub mod token;
