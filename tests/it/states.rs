//! The state tables of the protocol's page, row by row, against the machines: neither can change without the other.

use std::collections::BTreeSet;
use std::time::Instant;

use wsferry::protocol::chunk::{self, Header, Zeros};
use wsferry::protocol::{
    Accept, Action, BLOCK, BlockDigest, BlockSet, Code, Done, Input, Link, LinkEvent, Message, Offer,
    OfferKind, Opened, Sending, Violation,
};

use crate::link::{File, Options};
use crate::machines::{accept, digests, frame, greeted, hear, next_frame, offered, say};
use crate::support::random;

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

/// What happens to a machine.
enum Event {
    Comes(Vec<u8>),
    Fails,
    Cancels,
    /// A source of unknown size ends.
    Ends,
    Done(Done),
}

fn now() -> Instant {
    // One for all: no time passes here.
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *START.get_or_init(Instant::now)
}

fn small() -> File {
    File::new(random(1000, 1))
}

fn two_blocks() -> File {
    File::new(random(2 * BLOCK as usize, 2))
}

/// A well-formed frame of this kind, about this transfer.
fn frame_about(kind: &str, transfer: u32) -> Vec<u8> {
    let (file, code, again) = (small(), Code::Source, false);
    let reason = String::new;
    let header = Header { transfer, sequence: 0, offset: 0 };
    let message = match kind {
        "chunk" => return frame(transfer, 0, 0, &file.bytes),
        "zeros" => return chunk::encode_zeros(Zeros { header, len: file.bytes.len() as u64 }).to_vec(),
        "hello" => Message::Hello(Options::default().hello(true)),
        "offer" => Message::Offer(Offer { transfer, ..file.offer() }),
        "accept" => Message::Accept(Accept { transfer, ..accept(&[]) }),
        "reject" => Message::Reject { transfer, code, reason: reason(), again },
        "cancel" => Message::Cancel { transfer, code, reason: reason(), again },
        "ack" => Message::Ack { sequence: 0, durable: Vec::new() },
        "nak" => Message::Nak { sequence: 0 },
        "check" => Message::Check { transfer, first: 0, count: 1, tree: true },
        "digests" => match digests(0, file.hashes(0).digest()) {
            Message::Digests { first, digests, .. } => Message::Digests { transfer, first, digests },
            other => panic!("{other:?}"),
        },
        "repair" => Message::Repair { transfer, blocks: vec![(0, 1)] },
        "size" => Message::Size { transfer, size: file.bytes.len() as u64 },
        "finish" => Message::Finish { transfer, digest: file.digest() },
        "receipt" => Message::Receipt { files: vec![(transfer, Some(file.digest()))] },
        "ping" => Message::Ping { token: 1, busy: false },
        "pong" => Message::Pong { token: 1, busy: false },
        "error" => Message::Error { code, reason: reason(), again },
        _ => panic!("no message of kind {kind}"),
    };
    message.to_frame().into_bytes()
}

/// A machine that offered this, and heard `hello`.
fn sender_of(offer: Offer) -> Link {
    let mut link = Options::default().link(true, now());
    link.offer(offer, small().sending(BLOCK)).unwrap();
    say(&mut link, &Message::Hello(Options::default().hello(true)), now());
    link
}

/// A sender whose file was accepted, with these blocks held.
fn streaming_sender(file: &File, held: &[(u64, u64)]) -> Link {
    let mut link = offered(file, &Options::default(), true, now());
    hear(&mut link, Message::Accept(accept(held)), now());
    link
}

/// A sender that sent all of its file.
fn sent_sender(file: &File) -> Link {
    let mut link = streaming_sender(file, &[]);
    next_frame(&mut link, file, now()).expect("it is one chunk");
    link
}

/// A sender of which all was acknowledged, and that makes sure of its source.
fn confirming_sender() -> Link {
    let mut link = sent_sender(&small());
    let confirm = hear(&mut link, Message::Ack { sequence: 1, durable: Vec::new() }, now());
    assert_eq!(confirm, (Some(Action::Confirm { transfer: 0 }), None));
    link
}

fn finishing_sender() -> Link {
    let mut link = confirming_sender();
    link.done(0, Done::Confirmed, now());
    assert!(matches!(link.poll_message(now()), Some(Message::Finish { .. })));
    link
}

fn opening_receiver(offer: Offer) -> Link {
    let mut link = greeted(&Options::default(), now());
    say(&mut link, &Message::Offer(offer), now());
    assert!(matches!(link.poll_action(now()), Some(Action::Open { transfer: 0, .. })));
    link
}

fn streaming_receiver(file: &File, opened: Opened) -> Link {
    let mut link = opening_receiver(file.offer());
    link.done(0, Done::Opened(opened), now());
    assert!(matches!(link.poll_message(now()), Some(Message::Accept(_))));
    link
}

/// A receiver of a file whose size was not offered.
fn sizeless_receiver() -> Link {
    let mut link = opening_receiver(Offer { size: None, ..small().offer() });
    link.done(0, Done::Opened(Opened::default()), now());
    assert!(matches!(link.poll_message(now()), Some(Message::Accept(_))));
    link
}

/// A sender of a file whose end it does not know, and that was accepted.
fn sizeless_sender() -> Link {
    let mut link = Options::default().link(true, now());
    say(&mut link, &Message::Hello(Options::default().hello(true)), now());
    let sending = Sending { input: Some(Input::default()), ..small().sending(BLOCK) };
    link.offer(Offer { size: None, ..small().offer() }, sending).unwrap();
    hear(&mut link, Message::Accept(accept(&[])), now());
    link
}

/// A receiver that has these blocks.
fn holding_receiver(file: &File, complete: bool) -> Link {
    let held: BlockSet = std::iter::once(0..file.geometry().blocks()).collect();
    let received = file.bytes.len() as u64;
    streaming_receiver(file, Opened { held, received, complete, ..Opened::default() })
}

/// A receiver that asked for a block again.
fn repairing_receiver() -> Link {
    let file = two_blocks();
    let mut link = holding_receiver(&file, false);
    take(&mut link, &Message::Check { transfer: 0, first: 0, count: 1, tree: true });
    let reads = std::iter::from_fn(|| link.poll_action(now())).collect::<Vec<_>>();
    assert!(reads.contains(&Action::CheckBlock { transfer: 0, block: 0 }), "{reads:?}");
    link.done(0, Done::Digests(0, vec![BlockDigest::NONE]), now());
    link.done(0, Done::Checked(0, false), now());
    let said: Vec<_> = std::iter::from_fn(|| link.poll_message(now())).collect();
    assert!(said.contains(&Message::Repair { transfer: 0, blocks: vec![(0, 1)] }), "{said:?}");
    link
}

fn finishing_receiver() -> Link {
    // Without a chunk, so that the first sequence number is still to come.
    let mut link = streaming_receiver(&File::new(Vec::new()), Opened::default());
    feed(&mut link, &frame_about("finish", 0)).unwrap();
    assert!(matches!(link.poll_action(now()), Some(Action::Seal { .. })));
    link
}

fn take(link: &mut Link, message: &Message) {
    feed(link, message.to_frame().as_bytes()).unwrap();
}

fn feed(link: &mut Link, frame: &[u8]) -> Result<(), Violation> {
    link.handle_frame(frame, &mut Vec::new(), now()).map(|_| ())
}

/// A machine in a state, about which nothing else is special.
fn plain(machine: &str, state: &str) -> Link {
    match (machine, state) {
        ("connection", "greeting") => Options::default().link(true, now()),
        ("connection", "open") => greeted(&Options::default(), now()),
        ("sender", "offered") => sender_of(small().offer()),
        ("sender", "streaming") => streaming_sender(&small(), &[]),
        ("sender", "finishing") => finishing_sender(),
        ("sender", "ended") => {
            let mut link = sender_of(small().offer());
            link.cancel(0, Code::Source, "", false);
            link
        }
        ("receiver", "opening") => opening_receiver(small().offer()),
        ("receiver", "streaming") => streaming_receiver(&small(), Opened::default()),
        ("receiver", "finishing") => finishing_receiver(),
        ("receiver", "ended") => {
            let mut link = opening_receiver(small().offer());
            link.fail(0, Code::Busy, "", false);
            link
        }
        _ => panic!("no machine is driven into the state {state} of a {machine}"),
    }
}

/// The state that a machine is in, as far as its answers tell.
fn state_of(machine: &str, link: &mut Link) -> &'static str {
    let probe = match machine {
        "connection" => {
            let ended = std::iter::from_fn(|| link.poll_event())
                .any(|event| matches!(event, LinkEvent::Ended { .. }));
            return match link.peer() {
                _ if ended => "ended",
                None => "greeting",
                Some(_) => "open",
            };
        }
        "sender" if link.progress(0).is_none() => return "ended",
        "receiver" if link.received(0).is_none() => return "ended",
        // Neither is ever right.
        "sender" => Message::Digests { transfer: 0, first: 0, digests: "AAAA".to_owned() },
        _ => Message::Check { transfer: 0, first: 0, count: 0, tree: true },
    };
    match feed(link, probe.to_frame().as_bytes()).expect_err("the probe is never right") {
        Violation::Unexpected { state: "the sender waited for `accept`", .. } => "offered",
        Violation::Unexpected { state: "the receiver was opening the file", .. } => "opening",
        Violation::Unexpected { state: "the sender was sending chunks", .. } | Violation::Field { .. } => {
            "streaming"
        }
        Violation::Unexpected {
            state: "the sender waited for `receipt`" | "the receiver was sealing the file",
            ..
        } => "finishing",
        other => panic!("{machine}: {other:?}"),
    }
}

/// A machine in a row's state and place, and what the row says.
fn case(row: &Row) -> (Link, Event) {
    let known = || small().known();
    let comes = |what: &str, transfer| Event::Comes(frame_about(what, transfer));
    let Row { machine, state, what, place, .. } = row;
    let at = (*machine, state.as_str(), what.as_str(), place.as_str());
    match at {
        (.., "") if what == "sends cancel" => (plain(machine, state), Event::Cancels),
        (.., "") if what == "sends reject" => (plain(machine, state), Event::Fails),
        ("receiver", "opening", "sends accept", "") => {
            (plain(machine, state), Event::Done(Done::Opened(Opened::default())))
        }
        (.., "") => (plain(machine, state), comes(what, 0)),

        (
            "connection",
            "open",
            "offer",
            "its number is larger than all before, and no more are open than `hello` allowed",
        ) => (opening_receiver(small().offer()), comes(what, 7)),
        ("connection", "open", "cancel", "of a transfer that was offered to this side") => {
            (opening_receiver(small().offer()), comes(what, 0))
        }
        ("connection", "open", "size", "of a transfer that was offered to this side") => {
            (sizeless_receiver(), comes(what, 0))
        }
        ("connection", "open", "check" | "finish", "of a transfer that was offered to this side")
        | ("connection", "open", "chunk" | "zeros", "the same, and the sequence number is the next") => {
            (streaming_receiver(&small(), Opened::default()), comes(what, 0))
        }
        ("connection", "open", "accept" | "reject", "of a transfer that this side offered") => {
            (sender_of(small().offer()), comes(what, 0))
        }
        ("connection", "open", "digests", "of a transfer that this side offered") => {
            (streaming_sender(&small(), &[(0, 1)]), comes(what, 0))
        }
        ("connection", "open", "repair" | "receipt", "of a transfer that this side offered") => {
            (finishing_sender(), comes(what, 0))
        }
        ("connection", "open", "ack", "its `sequence` does not fall, and is at most the next") => {
            let ack = Message::Ack { sequence: 1, durable: Vec::new() };
            (sent_sender(&small()), Event::Comes(ack.to_frame().into_bytes()))
        }
        ("connection", "open", "nak", "of a frame that is in flight, and was not named before") => {
            (sent_sender(&small()), comes(what, 0))
        }

        (
            "sender",
            "offered",
            "receipt",
            "the digest was offered, or it is no file, or `quick` was offered and the digest is `null`",
        ) => (sender_of(known().offer()), comes(what, 0)),
        ("sender", "streaming", "digests", "they were asked for") => {
            (streaming_sender(&small(), &[(0, 1)]), comes(what, 0))
        }
        ("sender", "streaming", "receipt", "the digest was offered, and every byte was sent or held") => {
            (sent_sender(&known()), comes(what, 0))
        }
        ("sender", "streaming", "sends size", "it was offered without one") => {
            (sizeless_sender(), Event::Ends)
        }
        ("sender", "streaming", "sends finish", "all is sent, acknowledged and compared") => {
            (confirming_sender(), Event::Done(Done::Confirmed))
        }
        ("sender", "streaming", "sends nothing", "the same, and the digest was offered") => {
            let ack = Message::Ack { sequence: 1, durable: Vec::new() };
            (sent_sender(&known()), Event::Comes(ack.to_frame().into_bytes()))
        }

        ("receiver", "opening", "sends receipt", "it is no file, or the very file is there") => {
            let directory = Offer { kind: OfferKind::Directory, size: Some(0), ..small().offer() };
            (opening_receiver(directory), Event::Done(Done::Sealed(None)))
        }
        ("receiver", "streaming", "chunk" | "zeros", "`accept` did not say `complete`")
        | ("receiver", "streaming", "check", "the same, no other is open, and the digest was not offered") => {
            (plain(machine, state), comes(what, 0))
        }
        ("receiver", "streaming", "size", "it was offered without one, and no more has come") => {
            (sizeless_receiver(), comes(what, 0))
        }
        // Nothing is missing, so that no `repair` follows at once.
        (
            "receiver",
            "streaming",
            "finish",
            "the digest was not offered, the size is known, and no `repair` crossed it",
        ) => (streaming_receiver(&File::new(Vec::new()), Opened::default()), comes(what, 0)),
        (
            "receiver",
            "streaming",
            "finish",
            "the digest was not offered, the size is known, and a `repair` crossed it",
        ) => (repairing_receiver(), comes(what, 0)),
        ("receiver", "streaming", "sends nothing", "all bytes are there, and the digest was offered") => {
            (streaming_receiver(&known(), Opened::default()), comes("chunk", 0))
        }
        ("receiver", "finishing", "sends repair", "something is missing, or has to be compared") => {
            (finishing_receiver(), Event::Done(Done::Differs(Opened::default())))
        }
        ("receiver", "finishing", "sends receipt", "it is whole, has this digest, and is durable") => {
            (finishing_receiver(), Event::Done(Done::Sealed(Some(small().digest()))))
        }
        _ => panic!("no case drives {row:?}"),
    }
}

/// Machines in a row's state, where the row does not hold, and frames of what comes: one for each part of it.
fn where_it_does_not_hold(row: &Row) -> Vec<(Link, Vec<u8>)> {
    let (file, known) = (small(), small().known());
    let what = row.what.as_str();
    let ack = |sequence| Message::Ack { sequence, durable: Vec::new() }.to_frame().into_bytes();
    match (row.machine, row.state.as_str(), what) {
        ("connection", "open", "offer") => {
            let mut crowded = greeted(&Options::default(), now());
            for transfer in 0..Options::default().offers as u32 {
                feed(&mut crowded, &frame_about("offer", transfer)).unwrap();
            }
            vec![
                (opening_receiver(file.offer()), frame_about(what, 0)),
                (crowded, frame_about(what, Options::default().offers as u32)),
            ]
        }
        ("connection", "open", "chunk" | "zeros") => {
            let mut passed = streaming_receiver(&file, Opened::default());
            feed(&mut passed, &frame_about("chunk", 0)).unwrap();
            vec![
                (passed, frame_about(what, 0)),
                (streaming_receiver(&file, Opened::default()), frame_about(what, 1)),
            ]
        }
        ("connection", "open", "ack") => {
            vec![(confirming_sender(), ack(0)), (sent_sender(&file), ack(2))]
        }
        ("connection", "open", "nak") => {
            let mut named = sent_sender(&file);
            feed(&mut named, &frame_about(what, 0)).unwrap();
            vec![(named, frame_about(what, 0)), (confirming_sender(), frame_about(what, 0))]
        }
        ("connection", "open", _) => vec![
            (streaming_receiver(&file, Opened::default()), frame_about(what, 1)),
            (sender_of(file.offer()), frame_about(what, 1)),
        ],
        ("sender", "offered", "receipt") => {
            let null = Message::Receipt { files: vec![(0, None)] }.to_frame().into_bytes();
            let quick = || sender_of(Offer { quick: true, ..file.offer() });
            assert_eq!(feed(&mut quick(), &null), Ok(()));
            vec![
                (sender_of(file.offer()), frame_about(what, 0)),
                (sender_of(file.offer()), null),
                (quick(), frame_about(what, 0)),
            ]
        }
        ("sender", "streaming", "digests") => vec![(streaming_sender(&file, &[]), frame_about(what, 0))],
        ("sender", "streaming", "receipt") => vec![
            (streaming_sender(&known, &[]), frame_about(what, 0)),
            (sent_sender(&file), frame_about(what, 0)),
            (confirming_sender(), frame_about(what, 0)),
        ],
        ("receiver", "streaming", "chunk" | "zeros") => {
            vec![(holding_receiver(&file, true), frame_about(what, 0))]
        }
        ("receiver", "streaming", "check") => {
            let mut open = holding_receiver(&two_blocks(), false);
            feed(&mut open, &frame_about(what, 0)).unwrap();
            vec![
                (holding_receiver(&file, true), frame_about(what, 0)),
                (open, frame_about(what, 0)),
                (streaming_receiver(&known, Opened::default()), frame_about(what, 0)),
            ]
        }
        ("receiver", "streaming", "finish") => {
            vec![
                (streaming_receiver(&known, Opened::default()), frame_about(what, 0)),
                (sizeless_receiver(), frame_about(what, 0)),
            ]
        }
        ("receiver", "streaming", "size") => {
            let mut more = sizeless_receiver();
            feed(&mut more, &frame(0, 0, 0, &random(3 * 400, 1))).unwrap();
            vec![
                (streaming_receiver(&file, Opened::default()), frame_about(what, 0)),
                (more, frame_about(what, 0)),
            ]
        }
        _ => panic!("nothing drives {row:?} where it does not hold"),
    }
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
