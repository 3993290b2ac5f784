//! Exit codes.

use std::process::ExitCode;

use wsferry::transfer::ErrorKind;

/// How the program ends. The numbers are documented in EVENTS.md and in `--help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    Interrupted = 3,
    Refused = 4,
    Mismatch = 5,
    CtrlC = 130,
}

impl Exit {
    /// How another run of the program ended.
    pub fn of(code: i32) -> Option<Self> {
        let all = [
            Self::Done,
            Self::Failed,
            Self::Usage,
            Self::Interrupted,
            Self::Refused,
            Self::Mismatch,
            Self::CtrlC,
        ];
        all.into_iter().find(|exit| i32::from(exit.code()) == code)
    }

    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

impl From<ErrorKind> for Exit {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Failed => Self::Failed,
            ErrorKind::Interrupted => Self::Interrupted,
            ErrorKind::Refused => Self::Refused,
            ErrorKind::Mismatch => Self::Mismatch,
        }
    }
}
