//! Typed identifiers: those of the protocol, and the handle of a connection.

use std::fmt;

pub use purpose::ids::*;

/// Identifies a connection: its index in the table of connections, and a generation.
///
/// An old handle never reaches a newer connection at the same index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId {
    /// Index in the table.
    pub index: u32,
    /// Grows with each connection that uses the index.
    pub generation: u32,
}

impl ConnId {
    /// The index as `usize`.
    pub const fn at(self) -> usize {
        self.index as usize
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}.{}", self.index, self.generation)
    }
}
