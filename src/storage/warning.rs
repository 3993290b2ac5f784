//! What a file system would not do, and what a file lacks for it.

/// Something that was done without, since the file system does not take it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// Files cannot be locked.
    NoLocks(String),
    /// Nothing gives a name only if it is free.
    NoExclusiveNames,
    /// Names cannot be made durable.
    NoDirectorySync(String),
    /// The modification time could not be set.
    Time(String),
    /// The permission bits could not be set.
    Mode(String),
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoLocks(why) => write!(
                f,
                "files cannot be locked here ({why}); run one receiver alone in this directory at a time"
            ),
            Self::NoExclusiveNames => f.write_str(
                "no name can be given here only if it is free; a file that another program makes in that moment is \
                 replaced",
            ),
            Self::NoDirectorySync(why) => write!(
                f,
                "this file system does not sync directories ({why}); after a loss of power a finished file may lack \
                 its name"
            ),
            Self::Time(why) => write!(f, "its modification time could not be set ({why})"),
            Self::Mode(why) => write!(f, "its permissions could not be set ({why})"),
        }
    }
}
