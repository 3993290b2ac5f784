//! The connections that a receiver serves, and how long it goes on doing so.

use std::collections::HashMap;
use std::time::Instant;

use super::once::{Offered, Once};
use super::{Served, Shutdown, ShutdownHandle};

/// The connections that are served.
pub(super) struct Guests {
    pub(super) live: HashMap<u64, Guest>,
    pub(super) once: Option<Once>,
    /// How it went with the first that has all that is sent, of those that files are sent to, if it ends with that.
    served: Option<Served>,
    /// No other is served.
    pub(super) is_closing: bool,
    /// Those that are served go on to their end.
    pub(super) is_draining: bool,
    /// Those that are served were told why, and go by themselves.
    is_over: bool,
}

/// One of them. Dropping it stops the connection.
pub(super) struct Guest {
    _handle: ShutdownHandle,
    /// Files that were offered and have not ended.
    running: u64,
    /// How many more its sender means to offer.
    left: u64,
    has_offered: bool,
}

/// What happens on a connection, as far as it decides how long to serve.
pub(super) enum Said {
    Offered(Offered),
    Started(String),
    /// It may be offered again: another transfer is writing the name.
    Postponed(String),
    /// The source became another, which follows.
    Changed(String),
    /// It did not come to its end, and the same command goes on with it.
    Interrupted(String),
    /// The transfer ended for good.
    Ended(String, Served),
    /// The sender will offer no more, although it meant to.
    GaveUp,
    /// It was cut, and its sender would not be known again.
    Lost,
    /// Files are sent there.
    Serves,
    /// It has all of them, or refused them.
    Served(Served),
}

impl Guests {
    pub(super) fn new(once: bool) -> Self {
        Self {
            live: HashMap::new(),
            once: once.then(Once::default),
            served: None,
            is_closing: false,
            is_draining: false,
            is_over: false,
        }
    }

    /// A connection was accepted.
    pub(super) fn welcome(&mut self, number: u64) -> Shutdown {
        let (handle, shutdown) = Shutdown::new();
        self.live.insert(number, Guest { _handle: handle, running: 0, left: 0, has_offered: false });
        shutdown
    }

    pub(super) fn hear(&mut self, number: u64, said: Said) {
        if let Some(guest) = self.live.get_mut(&number) {
            match &said {
                Said::Offered(offered) => {
                    guest.running += 1;
                    guest.has_offered = true;
                    guest.left = offered.left;
                }
                Said::Serves => guest.running += 1,
                Said::Started(_) | Said::GaveUp | Said::Served(_) => {}
                Said::Postponed(_) | Said::Interrupted(_) | Said::Ended(..) | Said::Lost => {
                    guest.running = guest.running.saturating_sub(1);
                }
                Said::Changed(_) => {
                    guest.running = guest.running.saturating_sub(1);
                    guest.left = guest.left.max(1);
                }
            }
        }
        match (&mut self.once, said) {
            (_, Said::Served(served)) => drop(self.served.get_or_insert(served)),
            (None, _) | (_, Said::Serves) => {}
            (Some(once), Said::Offered(offered)) => once.offered(number, offered),
            (Some(once), Said::Started(name)) => once.started(number, &name, Instant::now()),
            (Some(once), Said::Postponed(name)) => once.postponed(number, &name),
            (Some(once), Said::Changed(name)) => once.changed(number, &name),
            (Some(once), Said::Interrupted(name)) => once.interrupted(number, &name),
            (Some(once), Said::Ended(name, served)) => once.ended(number, &name, served),
            (Some(once), Said::GaveUp) => once.gave_up(number),
            (Some(once), Said::Lost) => once.lost(number),
        }
        match &self.once {
            // Its connection may carry more files; the others may go.
            Some(once) if once.is_over() => {
                self.is_closing = true;
                self.live.retain(|&number, _| once.is_chosen(number));
            }
            _ if self.served.is_some() => {
                self.is_closing = true;
                self.live.retain(|&live, _| live == number);
            }
            _ if self.is_closing && !self.is_over => self.hang_up(),
            _ => {}
        }
    }

    /// How it went, once it is over.
    pub(super) fn outcome(self) -> Option<Served> {
        self.served.or_else(|| self.once?.outcome())
    }

    pub(super) fn gone(&mut self, number: u64) {
        self.live.remove(&number);
        if let Some(once) = &mut self.once {
            once.gone(number, Instant::now());
        }
    }

    /// Nothing more can be taken: those that offered something are told so, and go by themselves.
    pub(super) fn close(&mut self) {
        (self.is_closing, self.is_over) = (true, true);
        self.live.retain(|_, guest| guest.has_offered);
    }

    pub(super) fn stop(&mut self) {
        self.is_closing = true;
        self.is_draining = false;
        self.live.clear();
    }

    pub(super) fn drain(&mut self) {
        if !self.is_closing {
            self.is_closing = true;
            self.is_draining = true;
            self.hang_up();
        }
    }

    /// Ends the connections where nothing runs and nothing is to follow.
    fn hang_up(&mut self) {
        self.live.retain(|_, guest| guest.running > 0 || guest.left > 0);
    }
}
