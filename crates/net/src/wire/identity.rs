//! The two directions of one connection.

/// Seeds of the checksums: different for every connection and direction, so that bytes of another connection
/// (or one's own, sent back) don't pass for frames of this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seeds {
    /// For what we send.
    pub outgoing: u64,
    /// For what we receive.
    pub incoming: u64,
}

impl Seeds {
    /// The same connection seen from the other end.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self { outgoing: self.incoming, incoming: self.outgoing }
    }
}
