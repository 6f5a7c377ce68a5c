//! Numbers with a meaning: those of the protocol, and the handle of a connection.

use std::fmt;

pub use purpose::ids::*;

/// Names a connection: a place in the table of connections, and which of the connections that
/// stood there. An old handle never reaches a newer connection in the same place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId {
    /// Place in the table.
    pub index: u32,
    /// Grows with each connection that takes the place.
    pub generation: u32,
}

impl ConnId {
    /// The place as an index.
    pub const fn at(self) -> usize {
        self.index as usize
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}.{}", self.index, self.generation)
    }
}
