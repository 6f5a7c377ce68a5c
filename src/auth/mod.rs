//! Who somebody is: passwords, session secrets, invitations, and how often one may guess.
//!
//! Owns every secret's form at rest and in memory. Must not know the clock, the sockets or the
//! file: time and randomness are arguments, stored strings come and go as values.

pub mod helper;
pub mod password;
pub mod random;
pub mod throttle;
pub mod token;
