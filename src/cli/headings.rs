//! The groups that the flags stand in, in help and manual pages.

pub const SENT: &str = "What is sent";
pub const RECEIVED: &str = "What is received";
pub const PATH: &str = "Pace and cuts";
pub const PLAIN: &str = "Other people's programs";
pub const LISTENING: &str = "Listening";
pub const LIMITS: &str = "Limits";
pub const MEASURED: &str = "What is measured";
pub const CONNECTION: &str = "Connection";
pub const OUTPUT: &str = "Output";
