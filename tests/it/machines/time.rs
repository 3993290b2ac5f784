//! Signs of life, and who is given up for want of them.

use std::time::{Duration, Instant};

use wsferry::protocol::{Action, BLOCK, Done, Message, Opened};

use super::{accept, hear, next_frame, offered};
use crate::link::{Direction, Disk, Fault, File, Options, Pair};
use crate::support::random;

#[test]
fn signs_of_life_keep_a_connection_up_while_a_receiver_is_at_work_and_no_longer() {
    let start = Instant::now();
    let mut sender = Options::default().link(true, start);
    let mut receiver = Options::default().link(true, start);
    let file = File::new(Vec::new());
    sender.offer(file.offer(), file.sending(BLOCK)).unwrap();
    let mut pings = 0;
    // The receiver opens the file for ten minutes; then it does so, its `accept` is lost, and it is idle.
    let mut stalled = None;
    for second in 0..1200 {
        let now = start + Duration::from_secs(second);
        while let Some(message) = sender.poll_message(now) {
            receiver.handle_frame(message.to_frame().as_bytes(), &mut Vec::new(), now).unwrap();
        }
        while let Some(message) = receiver.poll_message(now) {
            pings += usize::from(message.kind() == "ping" || message.kind() == "pong");
            assert!(message.to_frame().len() > 6, "some gateways count less as silence");
            if message.kind() != "accept" {
                sender.handle_frame(message.to_frame().as_bytes(), &mut Vec::new(), now).unwrap();
            }
        }
        if second == 600 {
            assert!(matches!(receiver.poll_action(now), Some(Action::Open { .. })));
            receiver.done(0, Done::Opened(Opened::default()), now);
        }
        if let Err(waited) = sender.handle_timeout(now) {
            stalled = Some((second, waited));
            break;
        }
        receiver.handle_timeout(now).unwrap();
    }
    assert!(pings >= 29, "{pings}");
    let (second, waited) = stalled.expect("a receiver that is alive and does nothing is given up");
    let stall = Duration::from_secs(30);
    assert!((600..=640).contains(&second) && waited >= stall, "after {second} s: {waited:?}");
}

#[test]
fn an_acknowledgement_that_waits_for_the_socket_does_not_spin_the_clock() {
    let file = File::new(random(1000, 10));
    let mut disk = Disk::default();
    let mut link = Pair::one(&file, &mut disk, Options { chunk: 300, ..Options::default() });
    // Cut off just after the first chunk: its acknowledgement is due and nobody takes it.
    link.run(|direction, index, _| match (direction, index) {
        (Direction::ToReceiver, 3) => Fault::Cut,
        _ => Fault::Deliver,
    });
    let later = Instant::now() + Duration::from_secs(5);
    assert!(link.receiver.timeout(later) > later);
}

#[test]
fn an_acknowledgement_of_nothing_new_keeps_no_sender_waiting() {
    let now = Instant::now();
    let file = File::new(random(1000, 91));
    let mut sender = offered(&file, &Options::default(), true, now);
    hear(&mut sender, Message::Accept(accept(&[])), now);
    next_frame(&mut sender, &file, now).unwrap();
    let stalled = (1..60).find(|&second| {
        let now = now + Duration::from_secs(second);
        hear(&mut sender, Message::Ack { sequence: 0, durable: Vec::new() }, now);
        sender.handle_timeout(now).is_err()
    });
    assert_eq!(stalled, Some(30), "the stall timeout");
}
