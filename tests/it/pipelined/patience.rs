//! Who is waited for, and for how long.

use std::time::{Duration, Instant};

use wsferry::protocol::{Action, BLOCK, BlockDigest, Code, Done, Link, Message, Offer, Opened};

use super::{B, finish, offer, receiver_of, said, small, take};
use crate::link::{File, Options};
use crate::machines::{accept, digests, greeted, hashed, hear, offered, say};
use crate::support::random;

#[test]
fn a_receiver_at_work_is_waited_for_by_its_pings_too() {
    let start = Instant::now();
    let file = small(0);
    let mut sender = offered(&file, &Options::default(), true, start);
    let stalled = (1..120).find(|&second| {
        let now = start + Duration::from_secs(second);
        // Busy for a minute, and then no more.
        take(&mut sender, Message::Ping { token: second, busy: second <= 60 }.to_frame().as_bytes(), now);
        said(&mut sender, now);
        sender.handle_timeout(now).is_err()
    });
    assert_eq!(stalled, Some(90));
}

/// The second at which a receiver gives its sender up, that sends a `ping` each second, and what `besides` does.
fn given_up(
    receiver: &mut Link,
    start: Instant,
    mut besides: impl FnMut(&mut Link, u64, Instant),
) -> Option<u64> {
    (1..5000).find(|&second| {
        let now = start + Duration::from_secs(second);
        take(receiver, Message::Ping { token: second, busy: false }.to_frame().as_bytes(), now);
        besides(receiver, second, now);
        while receiver.poll_event().is_some() {}
        receiver.handle_timeout(now).is_err()
    })
}

#[test]
fn offers_that_come_and_go_hold_no_name_for_ever() {
    let start = Instant::now();
    let mut receiver = receiver_of(&[small(0)], start);
    let mut number = 0;
    let second = given_up(&mut receiver, start, |receiver, second, now| {
        if second.is_multiple_of(100) {
            number += 1;
            say(receiver, &offer(number, &small(number)), now);
            assert!(matches!(receiver.poll_action(now), Some(Action::Open { .. })));
            receiver.done(number, Done::Opened(Opened::default()), now);
            let (code, reason) = (Code::Source, String::new());
            say(receiver, &Message::Cancel { transfer: number, code, reason, again: false }, now);
            receiver.take_unfinished(number);
        }
        said(receiver, now);
    });
    // The first of them may be what the sender turned to.
    assert!(second.is_some_and(|second| (300..=600).contains(&second)), "{second:?}");

    // Between them there may be hours in which nothing is open.
    let (mut receiver, later) = (receiver_of(&[], start), start + Duration::from_secs(9000));
    say(&mut receiver, &offer(0, &small(0)), later);
    assert_eq!(receiver.handle_timeout(later), Ok(()));
    receiver.poll_action(later);
    receiver.done(0, Done::Opened(Opened::default()), later);
    assert_eq!(given_up(&mut receiver, later, |receiver, _, now| drop(said(receiver, now))), Some(300));
}

#[test]
fn an_offer_that_waits_for_another_to_end_does_not_keep_that_one_open() {
    let start = Instant::now();
    let mut receiver = receiver_of(&[small(0)], start);
    say(&mut receiver, &offer(1, &small(1)), start);
    // It is never opened, as where there are no descriptors for more than the first.
    assert_eq!(given_up(&mut receiver, start, |receiver, _, now| drop(said(receiver, now))), Some(300));
    // Alone it is waited for.
    let mut receiver = receiver_of(&[], start);
    say(&mut receiver, &offer(0, &small(0)), start);
    assert_eq!(given_up(&mut receiver, start, |receiver, _, now| drop(said(receiver, now))), None);
}

#[test]
fn a_finish_that_counts_for_nothing_and_an_answer_that_is_not_read_move_nothing() {
    let start = Instant::now();
    let file = File::new(random(2 * B, 40));
    let holding = || {
        let mut receiver = greeted(&Options::default(), start);
        say(&mut receiver, &offer(0, &file), start);
        receiver.poll_action(start);
        let held = std::iter::once(0..2).collect();
        let opened = Opened { held, received: 2 * BLOCK, ..Opened::default() };
        receiver.done(0, Done::Opened(opened), start);
        said(&mut receiver, start);
        receiver
    };
    let mut receiver = holding();
    assert_eq!(receiver.poll_action(start), Some(Action::CheckBlock { transfer: 0, block: 0 }));
    receiver.done(0, Done::Checked(0, false), start);
    assert_eq!(said(&mut receiver, start), [Message::Repair { transfer: 0, blocks: vec![(0, 1)] }]);
    let second = given_up(&mut receiver, start, |receiver, second, now| {
        if second.is_multiple_of(100) {
            say(receiver, &finish(0, &file), now);
        }
        said(receiver, now);
    });
    assert_eq!(second, Some(300 + 2 * BLOCK / 20_000_000));

    let mut receiver = holding();
    let check = Message::Check { transfer: 0, first: 0, count: 2, tree: true };
    take(&mut receiver, check.to_frame().as_bytes(), start);
    while receiver.poll_action(start).is_some() {}
    receiver.done(0, Done::Digests(0, vec![BlockDigest::NONE; 2]), start);
    assert_eq!(given_up(&mut receiver, start, |_, _, _| {}), Some(300));
}

#[test]
fn a_sender_may_wait_for_its_own_input_as_long_as_it_holds_up_nothing_else() {
    let start = Instant::now();
    let endless = |receiver: &mut Link, transfer| {
        let offer = Offer { transfer, size: None, path: format!("endless {transfer}"), ..small(0).offer() };
        say(receiver, &Message::Offer(offer), start);
        receiver.poll_action(start);
        receiver.done(transfer, Done::Opened(Opened::default()), start);
        said(receiver, start);
    };
    let mut receiver = greeted(&Options::default(), start);
    endless(&mut receiver, 0);
    endless(&mut receiver, 1);
    assert_eq!(given_up(&mut receiver, start, |_, _, _| {}), Some(300 + 60 * 60));

    let mut receiver = greeted(&Options::default(), start);
    endless(&mut receiver, 0);
    say(&mut receiver, &offer(1, &small(1)), start);
    receiver.poll_action(start);
    receiver.done(1, Done::Opened(Opened::default()), start);
    assert_eq!(given_up(&mut receiver, start, |_, _, _| {}), Some(300));
}

#[test]
fn what_is_said_of_nothing_that_is_open_keeps_no_sender_waiting() {
    let start = Instant::now();
    let (code, again, reason) = (Code::Busy, false, String::new);
    for idle in [
        Message::Receipt { files: Vec::new() },
        Message::Receipt { files: vec![(0, None)] },
        Message::Reject { transfer: 0, code, reason: reason(), again },
    ] {
        let mut sender = offered(&small(0), &Options::default(), true, start);
        let file = small(1);
        sender.offer(file.offer(), file.sending(BLOCK)).unwrap();
        sender.cancel(0, Code::Source, "gone", false);
        said(&mut sender, start);
        let stalled = (1..120).find(|&second| {
            let now = start + Duration::from_secs(second);
            take(&mut sender, idle.to_frame().as_bytes(), now);
            sender.handle_timeout(now).is_err()
        });
        assert_eq!(stalled, Some(30), "{idle:?}");
    }
}

#[test]
fn a_sender_waits_from_when_it_began_to_wait() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let file = File::new(random(2 * B, 8));
    let mut sender = offered(&file, &Options::default(), true, start);
    let ask = Message::Check { transfer: 0, first: 0, count: 2, tree: true };
    assert_eq!(hear(&mut sender, Message::Accept(accept(&[(0, 2)])), start), (None, Some(ask)));
    hear(&mut sender, digests(0, file.hashes(0).digest()), start);
    // A slow source: meanwhile the receiver gives signs of life and owes nothing.
    for second in 1..=100 {
        take(&mut sender, Message::Ping { token: second, busy: false }.to_frame().as_bytes(), at(second));
        said(&mut sender, at(second));
        assert_eq!(sender.handle_timeout(at(second)), Ok(()), "after {second} s");
    }
    hashed(&mut sender, &file, 0, at(100));
    assert!(sender.poll_action(at(100)).is_none());
    assert_eq!(sender.handle_timeout(at(100)), Ok(()), "the question is not even out");
    assert_eq!(said(&mut sender, at(100)).len(), 1);
    assert_eq!(sender.handle_timeout(at(129)), Ok(()));
    take(&mut sender, Message::Ping { token: 0, busy: false }.to_frame().as_bytes(), at(129));
    assert!(sender.handle_timeout(at(130)).is_err());
}
