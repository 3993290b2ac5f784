//! Messages that nobody sent, with fields that could be right, come between those of a transfer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use wsferry::protocol::message::transfer_id;
use wsferry::protocol::{Accept, BLOCK, Code, HASH_LEN, Message, Offer, chunk};

use crate::link::{Direction, Disk, Fault, File, Link, Options, send_to_the_end};
use crate::support::random;

const SIZE: usize = BLOCK as usize + 20_000;
const CHUNK: usize = 300_000;

fn file() -> File {
    File { mode: None, ..File::new(random(SIZE, 1)) }
}

fn id() -> impl Strategy<Value = String> {
    let file = file();
    let id = transfer_id(&file.name, SIZE as u64, file.mtime, 5, file.mode);
    prop_oneof![4 => Just(id), 1 => "[0-9a-f]{32}"]
}

/// A number of a block, a frame or an offset.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0u64..15, 2 => (0u64..15).prop_map(|n| n * CHUNK as u64), 1 => any::<u64>()]
}

fn runs() -> impl Strategy<Value = Vec<(u64, u64)>> {
    prop::collection::vec((0u64..3, 0u64..3), 0..3)
}

/// Never the file's own: who knows that sends what it likes under it.
fn digest() -> impl Strategy<Value = blake3::Hash> {
    any::<u64>().prop_map(|n| blake3::hash(&n.to_le_bytes()))
}

fn message() -> impl Strategy<Value = Message> {
    let code =
        || prop_oneof![Just(Code::Busy), Just(Code::Storage), Just(Code::Shutdown), Just(Code::Digest)];
    prop_oneof![
        (id(), number()).prop_map(|(id, window)| {
            let File { name, mtime, mode, .. } = file();
            let size = SIZE as u64;
            let (mtime_ns, frame_limit, repair, discard) = (5, 40_000, false, false);
            Message::Offer(Offer {
                id,
                name,
                size,
                mtime,
                mtime_ns,
                mode,
                frame_limit,
                window,
                repair,
                discard,
                left: 0,
                session: None,
            })
        }),
        (id(), runs(), number(), any::<bool>(), number()).prop_map(
            |(id, held, received, complete, window)| {
                let (frame_limit, discard) = (40_000, false);
                Message::Accept(Accept { id, held, received, complete, frame_limit, window, discard })
            }
        ),
        (id(), code()).prop_map(|(id, code)| Message::Reject { id, code, reason: "no".to_owned() }),
        (number(), number()).prop_map(|(sequence, durable)| Message::Ack { sequence, durable }),
        number().prop_map(|sequence| Message::Nak { sequence }),
        (number(), number()).prop_map(|(first, count)| Message::Check { first, count }),
        (number(), 0usize..2).prop_map(|(first, count)| {
            let digests = STANDARD.encode(vec![7; count * HASH_LEN]);
            Message::Digests { first, digests }
        }),
        runs().prop_map(|blocks| Message::Repair { blocks }),
        (id(), digest()).prop_map(|(id, digest)| Message::Finish { id, digest: digest.into() }),
        (id(), digest()).prop_map(|(id, digest)| Message::Receipt { id, digest: digest.into() }),
        (number(), any::<bool>()).prop_map(|(token, busy)| Message::Ping { token, busy }),
        (number(), any::<bool>()).prop_map(|(token, busy)| Message::Pong { token, busy }),
        code().prop_map(|code| Message::Error { code, reason: "over".to_owned() }),
    ]
}

/// A control message, or a chunk frame whose checksum is right and whose bytes are not the file's.
fn frame() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => message().prop_map(|message| message.to_text()),
        1 => (number(), number(), prop::sample::select(vec![3, CHUNK])).prop_map(|(sequence, offset, len)| {
            let mut frame = vec![0; chunk::frame_len(len)];
            let fit = |number: u64| number.min(chunk::MAX_SEQUENCE);
            chunk::encode(fit(sequence), fit(offset), &random(len, offset), &mut frame);
            String::from_utf8(frame).expect("a chunk frame is text")
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_forged_no_other_file_is_sealed_and_the_next_connection_ends_in_the_right_one(
        holds in prop::collection::vec(0u64..2, 0..2),
        turns_per_action in 1usize..20,
        forged in prop::collection::vec((any::<bool>(), 0usize..18, frame()), 1..4),
    ) {
        let file = file();
        let mut disk = Disk::holding(&file, holds);
        let options = Options { chunk: CHUNK as u64, turns_per_action, ..Options::default() };
        let mut link = Link::new(&file, &mut disk, options);
        for (to_sender, at, frame) in forged {
            let direction = if to_sender { Direction::ToSender } else { Direction::ToReceiver };
            link.forged.insert((direction, at), frame);
        }
        link.run(|_, _, _| Fault::Deliver);
        prop_assert!(disk.sealed.as_ref().is_none_or(|sealed| *sealed == file));
        send_to_the_end(&file, &mut disk, options, |_, _, _| Fault::Deliver);
        prop_assert_eq!(disk.sealed, Some(file));
    }
}
