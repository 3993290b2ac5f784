//! The time without a connection: lines tell its beginning and its end, whatever is tried in between.

use std::time::Instant;

use super::event::JsonEvent;
use super::output::Output;
use super::words;

/// Nothing, or the cut that is not over.
#[derive(Debug, Default)]
pub struct Outage(Option<Since>);

#[derive(Debug)]
struct Since {
    cut: Instant,
    attempts: u32,
}

impl Outage {
    /// Another connection is to be made. Whether this is the first try since the cut.
    pub fn try_again(&mut self, now: Instant) -> bool {
        let is_first = self.0.is_none();
        self.0.get_or_insert(Since { cut: now, attempts: 0 }).attempts += 1;
        is_first
    }

    /// Whether there is no connection.
    pub fn lasts(&self) -> bool {
        self.0.is_some()
    }

    /// Something came: there is a connection again. That is told, to people where lines tell what happens.
    pub fn end(&mut self, output: &Output, is_line: bool) {
        let Some(Since { cut, attempts }) = self.0.take() else { return };
        let seconds = cut.elapsed().as_secs_f64();
        output.event(JsonEvent::Reconnected { seconds, attempts });
        if is_line {
            let at = if attempts == 1 {
                String::new()
            } else {
                format!(", at the {} try", words::ordinal(attempts))
            };
            output.notice(&format!("connected again after {}{at}", words::moment(seconds)));
        }
    }
}
