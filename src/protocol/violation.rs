//! A peer broke the protocol: which field, what was expected, what came.

/// What was wrong with something that a peer sent. It ends the transfer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A field's value is outside its bounds or contradicts what was said before.
    #[error("{field} is {came}, expected {expected}")]
    Field {
        /// Message and field.
        field: &'static str,
        /// The bound, or the value it had to have.
        expected: String,
        /// What came.
        came: String,
    },
    /// A message that has no place in the present state.
    #[error("`{came}` came while {state}")]
    Unexpected {
        /// The message's kind.
        came: &'static str,
        /// What this side was doing.
        state: &'static str,
    },
    /// Neither a chunk frame nor a control message.
    #[error("a frame is no message of this protocol ({why}): `{came}`")]
    Malformed {
        /// What the parser says.
        why: String,
        /// The beginning of the frame.
        came: String,
    },
    /// A message is not what its CRC-32 says: what it was is not known.
    #[error("a control message came damaged")]
    DamagedMessage,
    /// More damaged chunk frames than a path that works would produce.
    #[error("{0} chunk frames came damaged on one connection, {max} at most are asked for again", max = super::MAX_NAKS)]
    Damaged(u32),
}

impl Violation {
    pub(crate) fn field(field: &'static str, expected: impl ToString, came: impl ToString) -> Self {
        Self::Field { field, expected: expected.to_string(), came: came.to_string() }
    }
}
