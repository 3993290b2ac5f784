//! Counters for monitors, fed by the same events that everybody else is told.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::prometheus_text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::{Error, ErrorKind, Event};
use crate::protocol::{Code, Progress};
use crate::transport::{Page, Refusal, TransportError};

/// How transfers end.
const RESULTS: [&str; 6] = ["received", "already_there", "refused", "interrupted", "mismatch", "failed"];
/// Why connections end before a file was offered.
const REASONS: [&str; 10] =
    ["token", "path", "origin", "address", "draining", "timeout", "tls", "handshake", "lost", "protocol"];

type By<const LABELS: usize> = Family<[(&'static str, String); LABELS], Counter>;

/// What a receiver counts. Clones count together.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    counts: Counts,
    known: Mutex<Known>,
}

/// What is counted.
#[derive(Default)]
struct Counts {
    transfers: By<1>,
    running: Gauge,
    received: Counter,
    resent: Counter,
    resumed: Counter,
    damaged: Counter,
    declined: By<1>,
    connections: Counter,
    open: Gauge,
    refused: By<1>,
    requests: By<2>,
}

/// What is known of what runs: events tell how far it is, counters want what came since.
#[derive(Default)]
struct Known {
    /// By connection and transfer.
    running: HashMap<(u64, u64), Running>,
    /// Damaged chunks so far, by connection.
    naks: HashMap<u64, u32>,
}

#[derive(Default)]
struct Running {
    /// Bytes of the file that were there when that was last told; nothing was told yet.
    there: Option<u64>,
    received: u64,
    /// Bytes that came again.
    again: u64,
}

impl Metrics {
    /// Of a receiver that starts.
    pub fn new() -> Self {
        let (mut registry, counts) = (Registry::with_prefix("wsferry"), Counts::default());
        let it = &counts;
        registry.register("transfers", "Transfers that ended, by how", it.transfers.clone());
        registry.register("transfers_running", "Transfers that are under way", it.running.clone());
        let help = "Bytes of files that came, those that came again included";
        registry.register_with_unit("received", help, Unit::Bytes, it.received.clone());
        let help = "Bytes of files that came although they had come before: blocks that were begun anew";
        registry.register_with_unit("resent", help, Unit::Bytes, it.resent.clone());
        registry.register("resumes", "Transfers that went on where they had been", it.resumed.clone());
        registry.register("damaged_chunks", "Chunks that came damaged", it.damaged.clone());
        registry.register(
            "offers_refused",
            "Offers of files that were refused, by the code that was told",
            it.declined.clone(),
        );
        registry.register("connections", "Connections that were accepted", it.connections.clone());
        registry.register("connections_open", "Connections at this moment", it.open.clone());
        registry.register(
            "connections_refused",
            "Connections that ended before a file was offered, by why",
            it.refused.clone(),
        );
        registry.register(
            "http_requests",
            "Requests that were for no WebSocket, by path and status",
            it.requests.clone(),
        );
        // What has not happened yet is 0, not absent: rates are taken from the first one on.
        for result in RESULTS {
            let _ = counts.transfers.get_or_create(&[("result", result.to_owned())]);
        }
        for reason in REASONS {
            let _ = counts.refused.get_or_create(&[("reason", reason.to_owned())]);
        }
        Self(Arc::new(Inner { registry, counts, known: Mutex::default() }))
    }

    /// Counts what an event tells: of a connection, and of a transfer on it if it is about one.
    pub fn observe(&self, connection: u64, transfer: Option<u64>, event: &Event) {
        let Inner { counts, known, .. } = &*self.0;
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        match (event, transfer) {
            (Event::Connected { .. }, _) => {
                counts.connections.inc();
                counts.open.inc();
            }
            (Event::Disconnected, _) => {
                counts.open.dec();
                known.naks.remove(&connection);
            }
            (Event::Answered { page, status }, _) => {
                let path = path(*page).to_owned();
                counts.requests.get_or_create(&[("path", path), ("status", status.to_string())]).inc();
            }
            (Event::Unserved(error), _) => {
                counts.refused.get_or_create(&[("reason", reason(error).to_owned())]).inc();
            }
            (Event::Started { .. }, Some(number)) => {
                // It starts once more if its source became another.
                let before = known.running.insert((connection, number), Running::default());
                counts.running.inc_by(before.is_none().into());
            }
            (Event::Resumed { .. }, _) => {
                counts.resumed.inc();
            }
            (Event::Progress(progress), Some(number)) => {
                let before = known.naks.insert(connection, progress.naks).unwrap_or_default();
                counts.damaged.inc_by(progress.naks.saturating_sub(before).into());
                if let Some(running) = known.running.get_mut(&(connection, number)) {
                    running.advance(progress, counts);
                }
            }
            (Event::Finished(summary), Some(number)) => {
                if let Some(mut running) = known.running.remove(&(connection, number)) {
                    running.advance(&summary.progress, counts);
                    // Of a file whose size nobody knew.
                    counts.received.inc_by(summary.new_bytes().saturating_sub(running.received));
                    counts.running.dec();
                }
                counts.ended(if summary.complete { "already_there" } else { "received" });
            }
            (Event::Failed(error), Some(number)) => {
                if known.running.remove(&(connection, number)).is_some() {
                    counts.running.dec();
                }
                if let Error::Declined { code, .. } = error {
                    counts.declined.get_or_create(&[("code", code_word(*code))]).inc();
                }
                counts.ended(result(error.kind()));
            }
            // What ends a connection ends all transfers on it.
            (Event::Failed(error), None) => {
                let ended = known.running.extract_if(|key, _| key.0 == connection).count();
                for _ in 0..ended {
                    counts.running.dec();
                    counts.ended(result(error.kind()));
                }
            }
            _ => {}
        }
    }

    /// All of it in Prometheus's text format, version 0.0.4.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing into memory cannot fail.
        let _ = prometheus_text::encode(&mut text, &self.0.registry);
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Counts {
    fn ended(&self, result: &str) {
        self.transfers.get_or_create(&[("result", result.to_owned())]).inc();
    }
}

impl Running {
    fn advance(&mut self, progress: &Progress, counts: &Counts) {
        let is_whole = Some(progress.acknowledged) == progress.total;
        // The first word is of what was there before, unless it is also the last.
        let first = if is_whole { progress.held } else { progress.acknowledged };
        let there = self.there.replace(progress.acknowledged).unwrap_or(first);
        let again = progress.resent.saturating_sub(std::mem::replace(&mut self.again, progress.resent));
        // What is given up comes again, and counts when it does.
        let came = (progress.acknowledged + again).saturating_sub(there);
        self.received += came;
        counts.received.inc_by(came);
        counts.resent.inc_by(again);
    }
}

fn result(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Failed => "failed",
        ErrorKind::Interrupted => "interrupted",
        ErrorKind::Refused => "refused",
        ErrorKind::Mismatch => "mismatch",
    }
}

/// As it is on the wire.
fn code_word(code: Code) -> String {
    let word = serde_json::to_value(code).ok();
    word.as_ref().and_then(|word| word.as_str()).unwrap_or("other").to_owned()
}

fn path(page: Page) -> &'static str {
    match page {
        Page::Health => crate::transport::HEALTH,
        Page::Metrics => crate::transport::METRICS,
        Page::Home => "/",
        Page::Other => "other",
    }
}

fn reason(error: &Error) -> &'static str {
    let Error::Transport(error) = error else { return "protocol" };
    match error {
        TransportError::Page { .. } => "origin",
        TransportError::Refused { refusal, .. } => match refusal {
            Refusal::NoToken | Refusal::WrongToken => "token",
            Refusal::Path => "path",
            Refusal::Crowded => "address",
            Refusal::Draining => "draining",
        },
        TransportError::HandshakeTimeout { .. } => "timeout",
        TransportError::Encrypted { .. }
        | TransportError::Unencrypted { .. }
        | TransportError::TlsHandshake { .. } => "tls",
        TransportError::Handshake { .. } => "handshake",
        TransportError::Lost { .. } | TransportError::Closed { .. } => "lost",
        _ => "protocol",
    }
}
