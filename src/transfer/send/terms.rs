//! How a sender uses a connection.

use futures::future::BoxFuture;
use rustix::process::{Resource, getrlimit};

use crate::transfer::SendOptions;
use crate::transfer::succession::Succession;

/// Transfers that are open at a time, however many descriptors there are: each file has one.
const MAX_OPEN: u64 = 4096;
/// Descriptors of the rest, and of files that are opened ahead.
const DESCRIPTORS_BESIDE: u64 = 512;

/// How a connection is used, and for how long.
pub(in crate::transfer) struct Terms<'a> {
    pub(in crate::transfer) options: &'a SendOptions,
    /// The connection behind this one.
    pub(in crate::transfer) succession: Option<&'a mut Succession>,
    /// Ends it with [`Error::Stopped`].
    pub(in crate::transfer) stop: BoxFuture<'static, ()>,
    /// Transfers that are open at a time.
    pub(in crate::transfer) most_open: usize,
}

impl<'a> Terms<'a> {
    /// One connection, up to its end.
    pub(in crate::transfer) fn of(options: &'a SendOptions) -> Self {
        Self { options, succession: None, stop: Box::pin(std::future::pending()), most_open: most_open() }
    }
}

/// As many transfers as there are descriptors for.
fn most_open() -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let most = descriptors.saturating_sub(DESCRIPTORS_BESIDE).clamp(16, MAX_OPEN);
    usize::try_from(most).expect("it is at most 4096")
}
