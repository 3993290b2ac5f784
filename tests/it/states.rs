//! The state tables of the protocol's page, row by row, against the machines: neither can change without the other.

mod cases;
mod driven;

use std::collections::BTreeSet;

use wsferry::protocol::{Code, Message, Violation};

use self::cases::{Event, case, where_it_does_not_hold};
use self::driven::{feed, frame_about, now, plain, state_of};

/// Messages about a transfer: what its sender hears of it, and its receiver.
const TO_SENDER: [&str; 5] = ["accept", "reject", "digests", "repair", "receipt"];
const TO_RECEIVER: [&str; 6] = ["chunk", "zeros", "check", "size", "finish", "cancel"];
const OF_CONNECTION: [&str; 7] = ["hello", "offer", "ack", "nak", "ping", "pong", "error"];

/// A row of a table; one that lists several messages is as many rows.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    machine: &'static str,
    state: String,
    /// The message that comes, or what is sent.
    what: String,
    place: String,
    becomes: String,
}

fn rows() -> Vec<Row> {
    let document = include_str!("../../src/protocol/PROTOCOL.md");
    let section = document.split("## States\n").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let (mut machine, mut state) = ("", String::new());
    let mut rows = Vec::new();
    for line in section.lines() {
        match line {
            "Of a connection, on either side." => machine = "connection",
            "Of a transfer, in its sender." => machine = "sender",
            "Of a transfer, in its receiver." => machine = "receiver",
            _ => {}
        }
        let Some(cells) = line.strip_prefix('|').and_then(|line| line.strip_suffix('|')) else { continue };
        let cells: Vec<_> = cells.split('|').map(str::trim).collect();
        let [of, what, place, becomes] = cells[..] else { panic!("four cells: {line}") };
        if of == "state" || of == "---" {
            continue;
        }
        if !of.is_empty() {
            of.clone_into(&mut state);
        }
        let comes = what.strip_suffix(" comes").or_else(|| what.strip_suffix(" come"));
        let each = comes.map_or_else(|| vec![what], |messages| messages.split(", ").collect());
        rows.extend(each.into_iter().map(|what| Row {
            machine,
            state: state.clone(),
            what: what.replace('`', ""),
            place: place.to_owned(),
            becomes: becomes.to_owned(),
        }));
    }
    rows
}

#[test]
fn each_row_of_the_tables_is_what_the_machines_do() {
    let rows = rows();
    assert!(rows.len() > 50, "{} rows were found", rows.len());
    for row in &rows {
        let before = if row.machine == "connection" { case(row).0 } else { plain(row.machine, &row.state) };
        for mut link in [before, case(row).0] {
            assert_eq!(state_of(row.machine, &mut link), row.state, "before {row:?}");
        }
        let (mut link, event) = case(row);
        while link.poll_message(now()).is_some() {}
        match event {
            Event::Comes(frame) => feed(&mut link, &frame).unwrap_or_else(|error| panic!("{row:?}: {error}")),
            Event::Fails => assert!(link.fail(0, Code::Storage, "", false).is_some()),
            Event::Cancels => link.cancel(0, Code::Source, "", false),
            Event::Ends => link.ended(0, 1000),
            Event::Done(done) => link.done(0, done, now()),
        }
        let said: Vec<_> = std::iter::from_fn(|| link.poll_message(now())).collect();
        // What belongs to the connection is said beside.
        let kinds: Vec<_> = said.iter().map(Message::kind).filter(|kind| *kind != "ack").collect();
        match row.what.strip_prefix("sends ") {
            Some("nothing") => assert!(kinds.is_empty(), "{row:?}: {kinds:?}"),
            Some(kind) => assert_eq!(kinds, [kind], "{row:?}"),
            None => {}
        }
        assert_eq!(state_of(row.machine, &mut link), row.becomes, "after {row:?}");
    }
}

#[test]
fn whatever_no_row_allows_is_a_violation() {
    let rows = rows();
    let of_transfer: Vec<_> = TO_SENDER.into_iter().chain(TO_RECEIVER).collect();
    let mut refused = 0;
    for (machine, kinds) in [
        ("connection", of_transfer.into_iter().chain(OF_CONNECTION).collect::<Vec<_>>()),
        ("sender", TO_SENDER.to_vec()),
        ("receiver", TO_RECEIVER.to_vec()),
    ] {
        let states: BTreeSet<_> =
            rows.iter().filter(|row| row.machine == machine).map(|row| row.state.as_str()).collect();
        for state in states {
            for &kind in &kinds {
                let is_listed = |row: &&Row| row.machine == machine && row.state == state && row.what == kind;
                if rows.iter().any(|row| is_listed(&row)) {
                    continue;
                }
                let wrong = feed(&mut plain(machine, state), &frame_about(kind, 0));
                assert!(
                    matches!(wrong, Err(Violation::Unexpected { .. })),
                    "{machine}, {state}, {kind}: {wrong:?}"
                );
                refused += 1;
            }
        }
    }
    // 15 before `hello` and one behind it; five of a sender's, eleven of a receiver's.
    assert_eq!(refused, 16 + 5 + 11);
}

#[test]
fn a_row_holds_where_it_says_and_nowhere_else() {
    let conditional =
        rows().into_iter().filter(|row| !row.place.is_empty() && !row.what.starts_with("sends "));
    let mut refused = 0;
    for row in conditional {
        for (mut link, frame) in where_it_does_not_hold(&row) {
            let wrong = feed(&mut link, &frame);
            assert!(wrong.is_err(), "{row:?}: {}", String::from_utf8_lossy(&frame));
            refused += 1;
        }
    }
    assert!(refused > 30, "{refused}");
}

#[test]
fn every_message_of_the_page_is_one_that_the_tables_are_driven_with() {
    let document = include_str!("../../src/protocol/PROTOCOL.md");
    let table = document.split("| type | from | fields |").nth(1).and_then(|rest| rest.split("\n\n").next());
    let listed: BTreeSet<_> = table
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('|').next())
        .flat_map(|kinds| kinds.split(", ").map(|kind| kind.trim().trim_matches('`')))
        .collect();
    let driven = TO_SENDER.into_iter().chain(TO_RECEIVER).chain(OF_CONNECTION);
    let driven: BTreeSet<_> = driven.filter(|kind| !["chunk", "zeros"].contains(kind)).collect();
    assert_eq!(listed, driven);
    // And one that it does not list means nothing.
    let unknown = wsferry::protocol::message::frame_of(r#"{"type":"greeting"}"#);
    for (machine, state) in [("connection", "open"), ("sender", "offered"), ("receiver", "streaming")] {
        let mut link = plain(machine, state);
        assert_eq!(feed(&mut link, unknown.as_bytes()), Ok(()));
        assert_eq!(state_of(machine, &mut link), state);
    }
}
