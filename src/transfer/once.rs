//! When a receiver of one sender is done: which sender it is, and how it went.
//!
//! The sender that first has a file accepted is the one. It is known again, after a cut, by its session, or by going on
//! with the file that was cut. Whatever others send, or are refused, ends nothing.

use std::collections::{BTreeSet, HashMap};
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
    /// Its connections, and how many files were offered on each and have not ended.
    connections: HashMap<u64, u64>,
    /// Since when it has no connection.
    alone_since: Option<Instant>,
    first: String,
    last: String,
    /// How many files it means to send behind the last one.
    left: u64,
    /// Those that were accepted and have not ended for good.
    open: BTreeSet<String>,
    /// Those that are to be offered again.
    postponed: BTreeSet<String>,
    failure: Option<ErrorKind>,
    /// One of its files came to an end.
    has_ended_any: bool,
}

impl Once {
    /// A file was offered on this connection.
    pub(super) fn offered(&mut self, connection: u64, offer: Offered) {
        if let Some(chosen) = &mut self.chosen {
            let came_back = offer.session.is_some() && chosen.session == offer.session;
            if came_back {
                chosen.connections.entry(connection).or_default();
                chosen.alone_since = None;
            }
        }
        match self.run(connection) {
            Some(run) => run.offered(connection, offer),
            None => {
                self.others.insert(connection, Run::new(connection, offer));
            }
        }
    }

    /// A file that was offered on this connection was accepted.
    pub(super) fn started(&mut self, connection: u64, name: &str, now: Instant) {
        if let Some(run) = self.run(connection) {
            run.open.insert(name.to_owned());
        }
        let gives_way = self.chosen.as_ref().is_none_or(|chosen| chosen.gives_way_to(name, now));
        if gives_way && self.others.contains_key(&connection) && !self.is_over {
            self.chosen = self.others.remove(&connection);
        }
    }

    /// It may be offered again: another transfer is writing that name.
    pub(super) fn postponed(&mut self, connection: u64, name: &str) {
        if let Some(run) = self.run(connection) {
            run.settle(connection);
            run.open.remove(name);
            run.postponed.insert(name.to_owned());
        }
    }

    /// The source became another, which follows.
    pub(super) fn changed(&mut self, connection: u64, name: &str) {
        if let Some(run) = self.run(connection) {
            run.settle(connection);
            run.open.remove(name);
            run.left = run.left.max(1);
        }
    }

    /// It came to an end that is none: the same command goes on with it.
    pub(super) fn interrupted(&mut self, connection: u64, name: &str) {
        if let Some(run) = self.run(connection) {
            run.settle(connection);
            run.open.insert(name.to_owned());
        }
    }

    /// It ended for good.
    pub(super) fn ended(&mut self, connection: u64, name: &str, served: Served) {
        let Some(run) = self.run(connection) else { return };
        let pending = run.settle(connection);
        run.open.remove(name);
        run.has_ended_any = true;
        if let Err(kind) = served {
            run.failure.get_or_insert(kind);
        }
        // What was offered on its other connections, before a cut that is not seen yet, was offered here again.
        let was_last = run.left == 0 && pending == 0;
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
            chosen.connections.remove(&connection);
            if chosen.connections.is_empty() {
                chosen.alone_since = Some(now);
            }
            // It only asked.
            if chosen.connections.is_empty() && chosen.has_nothing() && !self.is_over {
                self.chosen = None;
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
        self.chosen.as_ref().is_some_and(|chosen| chosen.connections.contains_key(&connection))
    }

    /// How it went, once it is over and the connections are gone: the first failure, or what was cut.
    pub(super) fn outcome(&self) -> Option<Served> {
        let chosen = self.chosen.as_ref().filter(|_| self.is_over)?;
        let left_out = (!chosen.postponed.is_empty()).then_some(ErrorKind::Refused);
        let failure = chosen.failure.or(left_out);
        let failure = failure.or((!chosen.open.is_empty()).then_some(ErrorKind::Interrupted));
        Some(failure.map_or(Ok(()), Err))
    }

    fn run(&mut self, connection: u64) -> Option<&mut Run> {
        match &mut self.chosen {
            Some(chosen) if chosen.connections.contains_key(&connection) => Some(chosen),
            _ => self.others.get_mut(&connection),
        }
    }
}

impl Run {
    fn new(connection: u64, offer: Offered) -> Self {
        Self {
            session: offer.session,
            connections: HashMap::from([(connection, 1)]),
            alone_since: None,
            first: offer.name.clone(),
            last: offer.name,
            left: offer.left,
            open: BTreeSet::new(),
            postponed: BTreeSet::new(),
            failure: None,
            has_ended_any: false,
        }
    }

    /// Nothing of it came to an end, or is to be gone on with.
    fn has_nothing(&self) -> bool {
        !self.has_ended_any && self.open.is_empty() && self.postponed.is_empty()
    }

    fn offered(&mut self, connection: u64, offer: Offered) {
        self.postponed.remove(&offer.name);
        *self.connections.entry(connection).or_default() += 1;
        (self.last, self.left) = (offer.name, offer.left);
    }

    /// A file that was offered on this connection has ended, or its offer has: how many have not.
    fn settle(&mut self, connection: u64) -> u64 {
        let pending = self.connections.entry(connection).or_default();
        *pending = pending.saturating_sub(1);
        *pending
    }

    /// Whether another run, whose file of this name was just accepted, is the same command run again, or has waited long
    /// enough.
    fn gives_way_to(&self, name: &str, now: Instant) -> bool {
        let same_file = self.open.contains(name);
        let same_command = same_file || [self.first.as_str(), &self.last].contains(&name);
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
        /// As above, of another file than the one that was offered last.
        StartOf(u64, &'static str),
        EndOf(u64, &'static str, Served),
        Busy(u64),
        Change(u64),
        Interrupt(u64),
        GiveUp(u64),
        Lost(u64),
        Gone(u64),
        Wait(Duration),
    }
    use Do::{Busy, Change, End, EndOf, GiveUp, Gone, Interrupt, Lost, Offer, Start, StartOf, Wait};

    const OK: Served = Ok(());
    const REFUSED: Served = Err(ErrorKind::Refused);

    fn outcome(steps: Vec<Do>) -> Option<Served> {
        let mut once = Once::default();
        let mut now = Instant::now();
        let mut names = HashMap::new();
        for step in steps {
            match step {
                Offer(connection, name, left, session) => {
                    names.insert(connection, name);
                    let session = (!session.is_empty()).then(|| session.to_owned());
                    once.offered(connection, Offered { name: name.to_owned(), left, session });
                }
                Start(connection) => once.started(connection, names[&connection], now),
                End(connection, served) => once.ended(connection, names[&connection], served),
                StartOf(connection, name) => once.started(connection, name, now),
                EndOf(connection, name, served) => once.ended(connection, name, served),
                Busy(connection) => once.postponed(connection, names[&connection]),
                Change(connection) => once.changed(connection, names[&connection]),
                Interrupt(connection) => once.interrupted(connection, names[&connection]),
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
                "it comes back before the cut is seen",
                all([vec![Offer(1, "b", 0, "S"), Start(1)], whole(2, "b", 0, "S")]),
                Some(OK),
            ),
            (
                "it comes back before the cut is seen, which is seen then",
                all([
                    vec![Offer(1, "b", 0, "S"), Start(1), Offer(2, "b", 0, "S"), Start(2), Gone(1)],
                    vec![End(2, OK)],
                ]),
                Some(OK),
            ),
            (
                "two at a time, the last one first",
                vec![
                    Offer(1, "a", 1, "S"),
                    Offer(1, "b", 0, "S"),
                    StartOf(1, "a"),
                    StartOf(1, "b"),
                    EndOf(1, "b", OK),
                ],
                None,
            ),
            (
                "and then the other",
                vec![
                    Offer(1, "a", 1, "S"),
                    Offer(1, "b", 0, "S"),
                    StartOf(1, "a"),
                    StartOf(1, "b"),
                    EndOf(1, "b", OK),
                    EndOf(1, "a", REFUSED),
                ],
                refused,
            ),
            (
                "the same command again, several at a time",
                all([
                    whole(1, "a", 2, "S"),
                    vec![Gone(1)],
                    vec![Offer(2, "a", 2, "T"), Offer(2, "b", 1, "T"), Offer(2, "c", 0, "T")],
                    vec![StartOf(2, "a"), EndOf(2, "a", OK), EndOf(2, "b", OK), EndOf(2, "c", OK)],
                ]),
                Some(OK),
            ),
            (
                "a source that became another, which is the last, while another ends",
                vec![
                    Offer(1, "b", 1, "S"),
                    Offer(1, "a", 0, "S"),
                    StartOf(1, "b"),
                    Start(1),
                    Change(1),
                    EndOf(1, "b", OK),
                ],
                None,
            ),
            (
                "and what it became",
                all([vec![Offer(1, "a", 0, "S"), Start(1), Change(1)], whole(1, "a", 0, "S")]),
                Some(OK),
            ),
            (
                "a dry run, and then somebody sends",
                all([vec![Offer(1, "a", 1, "S"), Start(1), Change(1), Gone(1)], whole(2, "x", 0, "T")]),
                Some(OK),
            ),
            ("a disk that is full", vec![Offer(1, "a", 0, "S"), Start(1), Interrupt(1), Gone(1)], None),
            (
                "a disk that is full for one of two",
                all([vec![Offer(1, "a", 1, "S"), Start(1), Interrupt(1)], whole(1, "b", 0, "S")]),
                interrupted,
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
