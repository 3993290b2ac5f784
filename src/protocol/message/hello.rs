//! What each side says first, and what holds by that.

use serde::{Deserialize, Serialize};

use super::{clip, is_id};
use crate::protocol::geometry::MIN_FRAME_LIMIT;
use crate::protocol::violation::Violation;

/// What a side can do beyond what each has to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Feature {
    /// Runs of zeros.
    Zeros,
    /// Paths of several components, directories and links.
    Trees,
    /// Block digests made of subtree hashes.
    TreeDigests,
    /// Files that are offered without their size, which comes at the end.
    LateSize,
    /// One that this version does not know.
    #[serde(other)]
    Unknown,
}

/// What a side does on a connection, if it is one of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It offers files, and takes none.
    Sender,
    /// It takes files, and offers none.
    Receiver,
    /// One that this version does not know.
    #[serde(other)]
    Unknown,
}

/// What each side says first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// What it can do: what both can is used.
    pub features: Vec<Feature>,
    /// The most characters that a frame may have on this path, in either direction.
    pub frame_limit: u64,
    /// The most bytes that may be unacknowledged.
    pub window: u64,
    /// The most offers that may be open at a time, at least [`MIN_OFFERS`].
    pub offers: u64,
    /// Random, the same on all connections of one run of a program: 32 lower-case hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// What it does on this connection, if it does one thing alone: two of one role have nothing to say to each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// The program and its version, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub program: String,
}

/// As many offers may be open on any connection, also before the peer's `hello` has come.
pub const MIN_OFFERS: u64 = 16;

impl Hello {
    /// Checks what a peer sent.
    pub fn check(mut self) -> Result<Self, Violation> {
        if self.frame_limit < MIN_FRAME_LIMIT as u64 {
            let expected = format!("at least {MIN_FRAME_LIMIT}");
            return Err(Violation::field("hello.frame_limit", expected, self.frame_limit));
        }
        if self.window == 0 {
            return Err(Violation::field("hello.window", "at least 1", 0));
        }
        if self.offers < MIN_OFFERS {
            return Err(Violation::field("hello.offers", format!("at least {MIN_OFFERS}"), self.offers));
        }
        if let Some(session) = self.session.as_ref().filter(|session| !is_id(session)) {
            return Err(Violation::field("hello.session", "32 lower-case hexadecimal digits", clip(session)));
        }
        self.program = clip(&self.program).into_owned();
        Ok(self)
    }

    /// What holds between two sides.
    pub(in crate::protocol) fn agree(&self, other: &Self) -> Agreed {
        let both = |feature| self.features.contains(&feature) && other.features.contains(&feature);
        Agreed {
            zeros: both(Feature::Zeros),
            trees: both(Feature::Trees),
            tree_digests: both(Feature::TreeDigests),
            late_size: both(Feature::LateSize),
            frame_limit: self.frame_limit.min(other.frame_limit),
            window: self.window.min(other.window),
        }
    }
}

/// What holds on a connection.
#[derive(Debug, Clone, Copy)]
pub(in crate::protocol) struct Agreed {
    pub(in crate::protocol) zeros: bool,
    pub(in crate::protocol) trees: bool,
    pub(in crate::protocol) tree_digests: bool,
    pub(in crate::protocol) late_size: bool,
    pub(in crate::protocol) frame_limit: u64,
    pub(in crate::protocol) window: u64,
}
