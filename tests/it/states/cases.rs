//! What drives each row of the tables, and what shows where it does not hold.

use wsferry::protocol::{Done, Link, Message, Offer, OfferKind, Opened};

use super::Row;
use super::driven::{
    confirming_sender, feed, finishing_receiver, finishing_sender, frame_about, holding_receiver, now,
    opening_receiver, plain, repairing_receiver, sender_of, sent_sender, sizeless_receiver, sizeless_sender,
    small, streaming_receiver, streaming_sender, two_blocks,
};
use crate::link::{File, Options};
use crate::machines::{frame, greeted};
use crate::support::random;

/// What happens to a machine.
pub enum Event {
    Comes(Vec<u8>),
    Fails,
    Cancels,
    /// A source of unknown size ends.
    Ends,
    Done(Done),
}

/// A machine in a row's state and place, and what the row says.
pub fn case(row: &Row) -> (Link, Event) {
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
pub fn where_it_does_not_hold(row: &Row) -> Vec<(Link, Vec<u8>)> {
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
