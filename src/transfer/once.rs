//! When a receiver of one sender is done: which sender it is, and how it went.
//!
//! The sender that first has a file accepted is the one. It is known again, after a cut, by its session, or by going on
//! with the file that was cut. Whatever others send, or are refused, ends nothing.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::{ErrorKind, Served};

/// How long a sender that was cut has to come back before another can take its place.
const RETURN_TIME: Duration = Duration::from_secs(60);

/// Decides when a receiver of one sender is done.
#[derive(Debug, Default)]
pub(super) struct Once {
    /// The one.
    chosen: Option<Run>,
    /// The others, by their connections.
    others: HashMap<u64, Run>,
    is_over: bool,
}

/// A file that was offered.
#[derive(Debug, Clone)]
pub(super) struct Offered {
    pub(super) name: String,
    pub(super) left: u64,
    pub(super) session: Option<String>,
}

/// One run of a sender.
#[derive(Debug)]
struct Run {
    session: Option<String>,
    connections: Vec<u64>,
    /// Since when it has no connection.
    alone_since: Option<Instant>,
    first: String,
    last: String,
    /// How many files it means to send behind the last one.
    left: u64,
    /// The last one was accepted, and has not ended for good.
    is_open: bool,
    /// The last one was refused because its name was being written: it may be offered again.
    is_busy: bool,
    failure: Option<ErrorKind>,
}

impl Once {
    /// A file was offered on this connection.
    pub(super) fn offered(&mut self, connection: u64, offer: Offered) {
        if let Some(chosen) = &mut self.chosen {
            let came_back = offer.session.is_some() && chosen.session == offer.session;
            if came_back && !chosen.connections.contains(&connection) {
                chosen.connections.push(connection);
                chosen.alone_since = None;
            }
        }
        match self.run(connection) {
            Some(run) => run.offered(offer),
            None => {
                self.others.insert(connection, Run::new(connection, offer));
            }
        }
    }

    /// It was accepted.
    pub(super) fn started(&mut self, connection: u64, now: Instant) {
        if let Some(run) = self.run(connection) {
            (run.is_open, run.is_busy) = (true, false);
        }
        let takes_over = |run: &Run| match &self.chosen {
            None => true,
            Some(chosen) => chosen.gives_way_to(run, now),
        };
        if self.others.get(&connection).is_some_and(takes_over) && !self.is_over {
            self.chosen = self.others.remove(&connection);
        }
    }

    /// It was refused because another transfer is writing that name.
    pub(super) fn busy(&mut self, connection: u64) {
        if let Some(run) = self.run(connection) {
            run.is_busy = true;
        }
    }

    /// It ended for good.
    pub(super) fn ended(&mut self, connection: u64, served: Served) {
        let Some(run) = self.run(connection) else { return };
        run.is_open = false;
        if let Err(kind) = served {
            run.failure.get_or_insert(kind);
        }
        let was_last = run.left == 0;
        if was_last && self.chosen.is_none() {
            // It was refused, and nobody else is there to be waited for.
            self.chosen = self.others.remove(&connection);
        }
        self.is_over |= was_last && self.is_chosen(connection);
    }

    /// It was cut, and its sender would not be known again: whoever sends next may be it.
    pub(super) fn lost(&mut self, connection: u64) {
        if self.is_chosen(connection) && !self.is_over {
            self.chosen = None;
        }
    }

    /// The sender will offer no more, although it meant to.
    pub(super) fn gave_up(&mut self, connection: u64) {
        if self.is_chosen(connection)
            && let Some(run) = self.run(connection)
        {
            run.failure.get_or_insert(ErrorKind::Failed);
            self.is_over = true;
        }
    }

    /// The connection ended.
    pub(super) fn gone(&mut self, connection: u64, now: Instant) {
        self.others.remove(&connection);
        if let Some(chosen) = &mut self.chosen {
            chosen.connections.retain(|other| *other != connection);
            if chosen.connections.is_empty() {
                chosen.alone_since = Some(now);
            }
        }
    }

    /// Whether all that the sender meant to send was received or refused. More may come on its connections, from a sender
    /// that does not tell how much.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether this connection is the chosen sender's.
    pub(super) fn is_chosen(&self, connection: u64) -> bool {
        self.chosen.as_ref().is_some_and(|chosen| chosen.connections.contains(&connection))
    }

    /// How it went, once it is over and the connections are gone: the first failure, or what was cut.
    pub(super) fn outcome(&self) -> Option<Served> {
        let chosen = self.chosen.as_ref().filter(|_| self.is_over)?;
        let failure = chosen.failure.or(chosen.is_open.then_some(ErrorKind::Interrupted));
        Some(failure.map_or(Ok(()), Err))
    }

    fn run(&mut self, connection: u64) -> Option<&mut Run> {
        match &mut self.chosen {
            Some(chosen) if chosen.connections.contains(&connection) => Some(chosen),
            _ => self.others.get_mut(&connection),
        }
    }
}

impl Run {
    fn new(connection: u64, offer: Offered) -> Self {
        Self {
            session: offer.session,
            connections: vec![connection],
            alone_since: None,
            first: offer.name.clone(),
            last: offer.name,
            left: offer.left,
            is_open: false,
            is_busy: false,
            failure: None,
        }
    }

    fn offered(&mut self, offer: Offered) {
        if self.is_busy && offer.name != self.last {
            // It was left out.
            self.failure.get_or_insert(ErrorKind::Refused);
        }
        (self.last, self.left) = (offer.name, offer.left);
        (self.is_open, self.is_busy) = (false, false);
    }

    /// Whether another run, one of whose files was just accepted, is the same command run again, or has waited long enough.
    fn gives_way_to(&self, run: &Self, now: Instant) -> bool {
        let same_file = self.is_open && run.last == self.last;
        let same_command = run.last == self.first || run.last == self.last;
        match self.alone_since {
            // Two never write one name: the old connection is as good as gone.
            None => same_file,
            Some(since) => same_command || now.saturating_duration_since(since) >= RETURN_TIME,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What happens on connections, and after it the outcome: none if the receiver has to wait.
    enum Do {
        Offer(u64, &'static str, u64, &'static str),
        Start(u64),
        End(u64, Served),
        Busy(u64),
        GiveUp(u64),
        Lost(u64),
        Gone(u64),
        Wait(Duration),
    }
    use Do::{Busy, End, GiveUp, Gone, Lost, Offer, Start, Wait};

    const OK: Served = Ok(());
    const REFUSED: Served = Err(ErrorKind::Refused);

    fn outcome(steps: Vec<Do>) -> Option<Served> {
        let mut once = Once::default();
        let mut now = Instant::now();
        for step in steps {
            match step {
                Offer(connection, name, left, session) => {
                    let session = (!session.is_empty()).then(|| session.to_owned());
                    once.offered(connection, Offered { name: name.to_owned(), left, session });
                }
                Start(connection) => once.started(connection, now),
                End(connection, served) => once.ended(connection, served),
                Busy(connection) => once.busy(connection),
                GiveUp(connection) => once.gave_up(connection),
                Lost(connection) => once.lost(connection),
                Gone(connection) => once.gone(connection, now),
                Wait(time) => now += time,
            }
        }
        once.outcome()
    }

    /// Offers, is accepted and ends well.
    fn whole(connection: u64, name: &'static str, left: u64, session: &'static str) -> Vec<Do> {
        vec![Offer(connection, name, left, session), Start(connection), End(connection, OK)]
    }

    fn all<const N: usize>(parts: [Vec<Do>; N]) -> Vec<Do> {
        parts.into_iter().flatten().collect()
    }

    #[test]
    fn a_receiver_of_one_sender_ends_with_all_that_this_sender_meant_to_send() {
        let interrupted = Some(Err(ErrorKind::Interrupted));
        let refused = Some(REFUSED);
        let cut = || vec![Offer(1, "b", 0, "S"), Start(1), Gone(1)];
        for (what, steps, expected) in [
            ("one file", whole(1, "a", 0, "S"), Some(OK)),
            ("one file, refused", vec![Offer(1, "a", 0, "S"), End(1, REFUSED)], refused),
            ("the first of two", whole(1, "a", 1, "S"), None),
            ("two", all([whole(1, "a", 1, "S"), whole(1, "b", 0, "S")]), Some(OK)),
            (
                "two, the first refused",
                all([vec![Offer(1, "a", 1, "S"), End(1, REFUSED)], whole(1, "b", 0, "S")]),
                refused,
            ),
            ("a cut in the second", all([whole(1, "a", 1, "S"), cut()]), None),
            ("it comes back", all([whole(1, "a", 1, "S"), cut(), whole(2, "b", 0, "S")]), Some(OK)),
            (
                "a cut between two",
                all([whole(1, "a", 1, "S"), vec![Gone(1)], whole(2, "b", 0, "S")]),
                Some(OK),
            ),
            (
                "a stranger is refused meanwhile",
                vec![Offer(1, "a", 0, "S"), Start(1), Offer(2, "x", 0, "T"), End(2, REFUSED), Gone(2)],
                None,
            ),
            (
                "a stranger sends meanwhile",
                all([vec![Offer(1, "a", 0, "S"), Start(1)], whole(2, "x", 0, "T")]),
                None,
            ),
            ("a stranger sends after a cut", all([cut(), whole(2, "x", 0, "T"), vec![Gone(2)]]), None),
            ("and it still comes back", all([cut(), whole(2, "x", 0, "T"), whole(3, "b", 0, "S")]), Some(OK)),
            ("it never comes back", all([cut(), vec![Wait(RETURN_TIME)], whole(2, "x", 0, "T")]), Some(OK)),
            (
                "the same command again",
                all([whole(1, "a", 1, "S"), cut(), whole(2, "a", 1, "T"), whole(2, "b", 0, "T")]),
                Some(OK),
            ),
            (
                "the same command again, a part of it",
                all([whole(1, "a", 1, "S"), cut(), whole(2, "a", 1, "T")]),
                None,
            ),
            (
                "the same command again, before the cut is seen",
                all([vec![Offer(1, "b", 0, "S"), Start(1)], whole(2, "b", 0, "T")]),
                Some(OK),
            ),
            (
                "a name that is busy and then free",
                all([vec![Offer(1, "a", 1, "S"), Busy(1)], whole(1, "a", 1, "S"), whole(1, "b", 0, "S")]),
                Some(OK),
            ),
            (
                "a name that is busy and left out",
                all([whole(1, "0", 2, "S"), vec![Offer(1, "a", 1, "S"), Busy(1)], whole(1, "b", 0, "S")]),
                refused,
            ),
            (
                "the rest cannot be read",
                all([whole(1, "a", 1, "S"), vec![GiveUp(1)]]),
                Some(Err(ErrorKind::Failed)),
            ),
            ("a stranger gives up", vec![Offer(1, "a", 0, "S"), Start(1), GiveUp(2)], None),
            (
                "no session and no count: another file comes",
                all([whole(1, "a", 0, ""), whole(1, "b", 0, "")]),
                Some(OK),
            ),
            (
                "no session and no count: that file is cut",
                all([whole(1, "a", 0, ""), vec![Offer(1, "b", 0, ""), Start(1), Gone(1)]]),
                interrupted,
            ),
            (
                "no session, cut, and again",
                all([vec![Offer(1, "a", 0, ""), Start(1), Gone(1)], whole(2, "a", 0, "")]),
                Some(OK),
            ),
            (
                "no name, cut, and somebody else comes",
                all([vec![Offer(1, "1", 0, ""), Start(1), Lost(1), Gone(1)], whole(2, "2", 0, "")]),
                Some(OK),
            ),
            (
                "no name, cut while somebody else sends",
                vec![
                    Offer(1, "1", 0, ""),
                    Start(1),
                    Offer(2, "2", 0, ""),
                    Start(2),
                    Lost(1),
                    Gone(1),
                    End(2, OK),
                ],
                Some(OK),
            ),
            (
                "no name, done, and then cut",
                all([whole(1, "1", 0, ""), vec![Offer(1, "1", 0, ""), Start(1), Lost(1), Gone(1)]]),
                interrupted,
            ),
            (
                "no session is no session in common",
                all([vec![Offer(1, "a", 0, ""), Start(1)], whole(2, "b", 0, "")]),
                None,
            ),
        ] {
            assert_eq!(outcome(steps), expected, "{what}");
        }
    }
}
