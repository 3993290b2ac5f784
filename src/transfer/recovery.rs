//! What becomes of a transfer whose connection ended: tried again, offered again as what the source became, or given
//! up. Facts in, decision out: no clock, no socket.

use std::time::Duration;

use super::{Error, ErrorKind};
use crate::protocol::{Code, Violation};
use crate::storage::SourceError;
use crate::transport::TransportError;

/// How often a source that changed while it was sent is taken up again.
pub(super) const MAX_CHANGES: u32 = 3;
/// How often a connection ends right behind one of the least frames before the path is called too narrow.
const MAX_LEAST_FAILED: u32 = 3;

/// For so long a peer may ask to be left alone: any number may stand there, also one that no clock reaches.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// What is known when a connection has ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// A receiver took or refused a file of this run: there is one.
    pub(super) reached: bool,
    /// This transfer was under way before, on this connection or an earlier one.
    pub(super) began: bool,
    /// How often the source was offered again as what it became.
    pub(super) changes: u32,
    /// How often a connection ended right behind one of the least frames.
    pub(super) least_failed: u32,
    /// Wait, however long it takes, while another transfer is writing the name.
    pub(super) waits_for_name: bool,
    /// How long nothing has moved, and how long that may last.
    pub(super) idle: Duration,
    pub(super) retry_for: Duration,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Dial again, after a while.
    Again,
    /// Offer what the source has become.
    Reoffer,
    /// Tell the caller of the error.
    GiveUp,
    /// No frame is small enough for the path.
    TooNarrow,
}

/// Decides.
pub(super) fn next(error: &Error, facts: &Facts) -> Next {
    match error {
        Error::Source(SourceError::Changed { .. }) if facts.changes < MAX_CHANGES => return Next::Reoffer,
        Error::Refused { code: Code::Busy, .. } if facts.waits_for_name => return Next::Again,
        _ => {}
    }
    if facts.least_failed >= MAX_LEAST_FAILED {
        return Next::TooNarrow;
    }
    if may_pass(error, facts) && facts.idle < facts.retry_for { Next::Again } else { Next::GiveUp }
}

/// Whether another connection may cure it: the receiver, or a gateway before it, may be restarting.
fn may_pass(error: &Error, facts: &Facts) -> bool {
    match error {
        // The name may be held by what is left of the connection before.
        Error::Refused { code: Code::Busy, .. } => facts.began,
        Error::Refused { again, .. } => *again,
        Error::PeerEnded { code, again, .. } => *again || *code == Code::Shutdown,
        Error::Violation { violation, .. } => facts.reached && matches!(violation, Violation::Damaged(_)),
        Error::Stalled { .. } => facts.reached,
        // One that never answered is no cut: there is probably none.
        Error::Transport(error) => facts.reached && is_cut(error),
        _ => false,
    }
}

/// Whether the same command would go on where it was, if it is run another time. What no time cures, such as a certificate
/// that is not trusted or a caller that is not known any more, is told as it is at the first connection.
fn is_interruption(error: &Error) -> bool {
    match error {
        Error::Transport(error) => is_cut(error),
        error => error.kind() == ErrorKind::Interrupted,
    }
}

/// Whether a connection that ended so, or could not be made, may be another time.
fn is_cut(error: &TransportError) -> bool {
    match error {
        TransportError::NotWebSocket { status, .. } => {
            matches!(status, 404 | 408 | 425 | 429) || *status >= 500
        }
        TransportError::Proxy { fault, .. } => fault.may_pass(),
        // What a certificate says, and to whom, stays as it is.
        TransportError::Tls { .. } | TransportError::SpeaksTls { .. } => false,
        TransportError::NotWsferry { .. } | TransportError::Frame { .. } | TransportError::Noise { .. } => {
            false
        }
        // It does not take text.
        TransportError::Closed { code: 1003, .. } => false,
        _ => true,
    }
}

/// How long to wait before another connection: as long as is usual, or as the peer asks for. Who asks for more time than
/// is left, or than [`LONGEST`], is not waited for any longer than that.
pub(super) fn delay(error: &Error, usual: Duration, left: Duration) -> Duration {
    usual.max(retry_after(error).unwrap_or_default().min(left).min(LONGEST))
}

/// The error for the caller, who has seen none of those that were tried again.
pub(super) fn gave_up(error: Error, attempts: u32) -> Error {
    if attempts > 0 && is_interruption(&error) && !matches!(error, Error::Stopped) {
        return Error::GaveUp { attempts, last: Box::new(error) };
    }
    error
}

/// How long the peer wants to be left alone, if it says so.
fn retry_after(error: &Error) -> Option<Duration> {
    match error {
        Error::Transport(TransportError::NotWebSocket { retry_after, .. }) => *retry_after,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::dial::{CertificateFault, CertificateFaultKind, ProxyFault, TlsFault};

    fn closed(code: u16) -> Error {
        let (address, reason) = ("h:1".to_owned(), String::new());
        TransportError::Closed { address, code, reason }.into()
    }

    #[test]
    fn what_a_peer_asks_for_is_granted_as_far_as_there_is_time_and_for_a_day_at_most() {
        let asks = |seconds| {
            let (address, status, retry_after) = ("h:1".to_owned(), 429, Some(Duration::from_secs(seconds)));
            let (asked, location) = Default::default();
            Error::from(TransportError::NotWebSocket { address, status, asked, location, retry_after })
        };
        let (usual, hour) = (Duration::from_secs(2), Duration::from_secs(3600));
        for (seconds, left, expected) in [
            (0, hour, usual),
            (60, hour, Duration::from_secs(60)),
            (7200, hour, hour),
            (u64::MAX, hour, hour),
            (u64::MAX, Duration::MAX, LONGEST),
        ] {
            assert_eq!(delay(&asks(seconds), usual, left), expected, "{seconds} s of {left:?}");
        }
        assert_eq!(delay(&Error::Stopped, usual, Duration::MAX), usual);
    }

    fn status(status: u16) -> Error {
        let address = "h:1".to_owned();
        let (asked, location, retry_after) = Default::default();
        TransportError::NotWebSocket { address, status, asked, location, retry_after }.into()
    }

    fn tls(fault: TlsFault) -> Error {
        TransportError::Tls { address: "h:1".to_owned(), fault }.into()
    }

    fn certificate(kind: CertificateFaultKind) -> Error {
        tls(TlsFault::Certificate(CertificateFault { kind, what: String::new() }))
    }

    fn proxy(fault: ProxyFault) -> Error {
        TransportError::Proxy { proxy: "p:1".to_owned(), address: "h:1".to_owned(), fault }.into()
    }

    fn refused(code: Code, again: bool) -> Error {
        let (peer, name, reason) = ("h:1".to_owned(), "n".to_owned(), String::new());
        Error::Refused { peer, name, code, reason, again }
    }

    fn ended(code: Code, again: bool) -> Error {
        Error::PeerEnded { peer: "h:1".to_owned(), code, reason: String::new(), again }
    }

    fn violation(violation: Violation) -> Error {
        Error::Violation { peer: "h:1".to_owned(), violation }
    }

    fn changed() -> Error {
        SourceError::Changed { path: "f".into(), what: "it grew".to_owned() }.into()
    }

    #[test]
    fn what_no_time_cures_is_no_interruption() {
        for (error, expected) in [
            (closed(1006), true),
            (closed(1009), true),
            (status(503), true),
            (proxy(ProxyFault::Unreachable(String::new())), true),
            (Error::Stalled { peer: "h:1".to_owned(), silence: Duration::ZERO }, true),
            (closed(1003), false),
            (status(401), false),
            (status(426), false),
            (certificate(CertificateFaultKind::Expired), false),
            (TransportError::SpeaksTls { address: "h:1".to_owned() }.into(), false),
            (proxy(ProxyFault::Login(String::new())), false),
            (violation(Violation::field("ack.sequence", 1, 2)), false),
            (refused(Code::Exists, false), false),
        ] {
            assert_eq!(is_interruption(&error), expected, "{error}");
        }
    }

    #[test]
    fn each_end_of_a_connection_has_its_consequence() {
        let never = Facts { retry_for: Duration::from_secs(600), ..Facts::default() };
        let reached = Facts { reached: true, ..never };
        let began = Facts { began: true, ..reached };
        let waits = Facts { waits_for_name: true, ..reached };
        let late = Facts { idle: Duration::from_secs(600), ..began };
        let damaged = || violation(Violation::Damaged(101));
        let broken = || violation(Violation::field("ack.sequence", 1, 2));
        let cases = [
            // A receiver that was never reached is not waited for.
            (closed(1006), never, Next::GiveUp),
            (status(503), never, Next::GiveUp),
            (refused(Code::Storage, true), never, Next::Again),
            // One that was is.
            (closed(1000), reached, Next::Again),
            (closed(1006), began, Next::Again),
            (closed(1008), began, Next::Again),
            (closed(1009), began, Next::Again),
            (closed(1003), began, Next::GiveUp),
            (status(404), began, Next::Again),
            (status(408), began, Next::Again),
            (status(425), began, Next::Again),
            (status(429), began, Next::Again),
            (status(502), began, Next::Again),
            (status(301), began, Next::GiveUp),
            (status(401), began, Next::GiveUp),
            (status(403), began, Next::GiveUp),
            (status(407), began, Next::GiveUp),
            (status(421), began, Next::GiveUp),
            (status(426), began, Next::GiveUp),
            (status(503), began, Next::Again),
            (status(504), began, Next::Again),
            // TLS, which is as it is.
            (certificate(CertificateFaultKind::Expired), began, Next::GiveUp),
            (certificate(CertificateFaultKind::Untrusted), began, Next::GiveUp),
            (certificate(CertificateFaultKind::WrongName), began, Next::GiveUp),
            (tls(TlsFault::NotTls), began, Next::GiveUp),
            (tls(TlsFault::Identity(String::new())), began, Next::GiveUp),
            (TransportError::SpeaksTls { address: "h:1".to_owned() }.into(), began, Next::GiveUp),
            // A proxy that has its rules, and one that has its troubles.
            (proxy(ProxyFault::Login(String::new())), began, Next::GiveUp),
            (proxy(ProxyFault::Status(403)), began, Next::GiveUp),
            (proxy(ProxyFault::Tls(TlsFault::NotTls)), began, Next::GiveUp),
            (proxy(ProxyFault::Status(503)), began, Next::Again),
            (proxy(ProxyFault::Unreachable(String::new())), began, Next::Again),
            (proxy(ProxyFault::Unreachable(String::new())), never, Next::GiveUp),
            (Error::Stalled { peer: "h:1".to_owned(), silence: Duration::ZERO }, began, Next::Again),
            // But not for ever.
            (closed(1006), late, Next::GiveUp),
            // A name that somebody writes.
            (refused(Code::Busy, true), reached, Next::GiveUp),
            (refused(Code::Busy, true), began, Next::Again),
            (refused(Code::Busy, true), waits, Next::Again),
            (refused(Code::Busy, true), Facts { idle: late.idle, ..waits }, Next::Again),
            // What the receiver says.
            (refused(Code::Exists, false), began, Next::GiveUp),
            (refused(Code::Storage, false), began, Next::GiveUp),
            (ended(Code::Shutdown, false), began, Next::Again),
            (ended(Code::Storage, true), began, Next::Again),
            (ended(Code::Digest, false), began, Next::GiveUp),
            // What it does.
            (damaged(), began, Next::Again),
            (broken(), began, Next::GiveUp),
            (closed(1009), Facts { least_failed: 3, ..began }, Next::TooNarrow),
            // The source.
            (changed(), began, Next::Reoffer),
            (changed(), Facts { changes: MAX_CHANGES, ..began }, Next::GiveUp),
        ];
        for (error, facts, expected) in cases {
            assert_eq!(next(&error, &facts), expected, "{error}: {facts:?}");
        }
    }
}
