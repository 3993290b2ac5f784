//! The other side, and how it is reached.

use std::fmt;

use super::{Connection, Dialer, Endpoint, Program, TransportError};
use crate::runtime::Stream;

/// Where connections lead, as many as it takes.
#[derive(Debug)]
pub enum Remote {
    /// To a URL, which is dialled.
    Url(Box<Dialer>),
    /// To a program, which is started for each of them.
    Program(Program),
}

impl Remote {
    /// Opens a connection.
    ///
    /// # Errors
    /// What could not be reached, or does not speak this protocol.
    pub async fn connect(&self) -> Result<Connection<Stream>, TransportError> {
        match self {
            Self::Url(dialer) => dialer.dial().await,
            Self::Program(program) => program.start().await,
        }
    }
}

impl From<Dialer> for Remote {
    fn from(dialer: Dialer) -> Self {
        Self::Url(Box::new(dialer))
    }
}

impl From<Endpoint> for Remote {
    fn from(endpoint: Endpoint) -> Self {
        Dialer::from(endpoint).into()
    }
}

impl From<Program> for Remote {
    fn from(program: Program) -> Self {
        Self::Program(program)
    }
}

/// For people, without what may be secret in a URL.
impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(dialer) => dialer.endpoint().fmt(f),
            Self::Program(program) => program.fmt(f),
        }
    }
}
