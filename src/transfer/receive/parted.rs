//! What connections on which files are received have in common, and how one of them ended.

use super::Receptacle;
use crate::transfer::Error;
use crate::transfer::berths::Berths;
use crate::transfer::claims::Claims;
use crate::transport::TransportError;

/// Files that are open at a time where nobody else counts them.
const MAX_FILES: u64 = 1024;

/// Where files go, which connections may share.
#[derive(Clone)]
pub(in crate::transfer) struct Places {
    pub(in crate::transfer) into: Receptacle,
    pub(in crate::transfer) claims: Claims,
    pub(in crate::transfer) berths: Berths,
}

impl Places {
    /// Those of connections of which nobody else counts the files.
    pub(in crate::transfer) fn alone(into: Receptacle) -> Self {
        Self { into, claims: Claims::default(), berths: Berths::new(MAX_FILES) }
    }
}

/// How a connection ended on which files were received.
#[derive(Debug)]
pub(in crate::transfer) struct Parted {
    pub(in crate::transfer) error: Error,
    /// Files had been taken and were not whole.
    pub(in crate::transfer) under_way: bool,
}

impl Parted {
    /// For somebody who takes what comes: a peer that hangs up with nothing under way ends well.
    pub(in crate::transfer) fn of_peer(self) -> Result<(), Error> {
        match self.error {
            Error::Transport(TransportError::Closed { .. } | TransportError::Lost { .. })
                if !self.under_way =>
            {
                Ok(())
            }
            error => Err(error),
        }
    }
}
