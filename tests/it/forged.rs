//! Messages that nobody sent, with fields that could be right, come between those of a transfer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use wsferry::protocol::chunk::Header;
use wsferry::protocol::{Accept, BLOCK, Code, HASH_LEN, Hello, Message, Offer, chunk};

use crate::link::{Direction, Disk, Fault, File, Options, Pair, send_to_the_end};
use crate::support::random;

const SIZE: usize = BLOCK as usize + 20_000;
const CHUNK: usize = 300_000;

fn file() -> File {
    File { mode: None, ..File::new(random(SIZE, 1)) }
}

fn transfer() -> impl Strategy<Value = u32> {
    prop_oneof![6 => Just(0), 2 => 1u32..3, 1 => any::<u32>()]
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
        (number(), number(), number()).prop_map(|(frame_limit, window, offers)| {
            let bare = Options::default().hello(false);
            Message::Hello(Hello { frame_limit, window, offers, ..bare })
        }),
        (transfer(), any::<bool>(), prop::option::of(digest())).prop_map(|(transfer, small, digest)| {
            let (digest, offer) = (digest.map(Into::into), file().offer());
            // Of a file of that name, as large or of one block.
            let size = if small { Some(10_000) } else { offer.size };
            Message::Offer(Offer { transfer, size, digest, ..offer })
        }),
        (transfer(), runs(), runs(), number(), any::<bool>()).prop_map(
            |(transfer, held, begun, received, complete)| {
                Message::Accept(Accept { transfer, held, begun, received, complete, discard: false })
            }
        ),
        (transfer(), code(), any::<bool>()).prop_map(|(transfer, code, again)| {
            let reason = "no".to_owned();
            Message::Reject { transfer, code, reason, again }
        }),
        (transfer(), code(), any::<bool>()).prop_map(|(transfer, code, again)| {
            let reason = "no more".to_owned();
            Message::Cancel { transfer, code, reason, again }
        }),
        (number(), prop::collection::vec((transfer(), number()), 0..2))
            .prop_map(|(sequence, durable)| Message::Ack { sequence, durable }),
        number().prop_map(|sequence| Message::Nak { sequence }),
        (transfer(), number(), number(), any::<bool>())
            .prop_map(|(transfer, first, count, tree)| Message::Check { transfer, first, count, tree }),
        (transfer(), number(), 0usize..2).prop_map(|(transfer, first, count)| {
            let digests = STANDARD.encode(vec![7; count * HASH_LEN]);
            Message::Digests { transfer, first, digests }
        }),
        (transfer(), runs()).prop_map(|(transfer, blocks)| Message::Repair { transfer, blocks }),
        (transfer(), digest())
            .prop_map(|(transfer, digest)| Message::Finish { transfer, digest: digest.into() }),
        prop::collection::vec((transfer(), prop::option::of(digest())), 0..3).prop_map(|files| {
            let files = files.into_iter().map(|(transfer, digest)| (transfer, digest.map(Into::into)));
            Message::Receipt { files: files.collect() }
        }),
        (number(), any::<bool>()).prop_map(|(token, busy)| Message::Ping { token, busy }),
        (number(), any::<bool>()).prop_map(|(token, busy)| Message::Pong { token, busy }),
        code().prop_map(|code| Message::Error { code, reason: "over".to_owned(), again: false }),
    ]
}

/// A control message, or a chunk frame whose checksum is right and whose bytes are not the file's.
fn frame() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => message().prop_map(|message| message.to_frame()),
        1 => (transfer(), number(), number(), prop::sample::select(vec![3, CHUNK])).prop_map(|(transfer, sequence, offset, len)| {
            let mut frame = vec![0; chunk::frame_len(len)];
            let fit = |number: u64| number.min(chunk::MAX_SEQUENCE);
            let header = Header { transfer, sequence: fit(sequence), offset: fit(offset) };
            chunk::encode(header, &random(len, offset), &mut frame);
            String::from_utf8(frame).expect("a chunk frame is text")
        }),
        1 => (transfer(), number(), number(), number()).prop_map(|(transfer, sequence, offset, len)| {
            let fit = |number: u64| number.min(chunk::MAX_SEQUENCE);
            let header = Header { transfer, sequence: fit(sequence), offset: fit(offset) };
            let zeros = chunk::Zeros { header, len: fit(len) };
            String::from_utf8(chunk::encode_zeros(zeros).to_vec()).expect("a frame of zeros is text")
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
        let mut link = Pair::one(&file, &mut disk, options);
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
