//! Connections that are cut, stall or are slow, on the way and at the receiver: the sender goes on by itself.

use std::net::TcpListener;

use serde_json::json;

use super::{B, slow};
use crate::proxy::{Plan, Proxy};
use crate::support::{Peer, Place, Receiver, Running, random, send, send_well, wsferry};

#[test]
fn a_connection_cut_anywhere_resumes_at_another_chunk_size() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let bytes = random(6 * B + 7, 5);
    // In the handshake, in the offer, in the first chunk, in mid-file, in the last bytes.
    for (number, cut) in [100u64, 400, 5000, 9_000_000, 20_000_000, 25_100_000].into_iter().enumerate() {
        let name = format!("f{number}");
        let file = place.file(&name, &bytes);
        let proxy = Proxy::start(receiver.address(), move |_| {
            (Plan { cut_after: Some(cut), ..Plan::default() }, Plan::default())
        });
        let first = send(&file, &proxy.url(), &["--retry-for", "0s"]);
        assert!(matches!(first.code(), 1 | 3), "cut at {cut}: {first:?}");
        let finished = send_well(&file, &receiver.url, &["--frame-limit", "32KiB"]);
        assert_eq!(finished["resumed_at"].as_u64().unwrap() % 3, 0);
        if cut > 9_000_000 {
            assert!(finished["resumed_at"].as_u64().unwrap() > 0);
        }
        assert!(place.received(&name) == bytes, "cut at {cut}");
    }
    assert!(!place.listing().contains(&".wsferry".to_owned()));
}

#[test]
fn a_receipt_that_was_lost_costs_nothing() {
    let place = Place::new();
    let bytes = random(2 * B, 6);
    for flags in [&[][..], &["--overwrite"]] {
        let receiver = Receiver::start(&place, flags);
        let name = format!("f{}", flags.len());
        let file = place.file(&name, &bytes);
        // The way back is cut as soon as the receipt might come: every such point until it succeeds.
        let proxy = Proxy::start(receiver.address(), |_| {
            (Plan::default(), Plan { stall_after: Some(700), ..Plan::default() })
        });
        let impatient = ["--json", "--stall-timeout", "2s"];
        let sender = Running::start(wsferry().arg("send").arg(&file).arg(proxy.url()).args(impatient));
        receiver.running.wait_for(|event| event["event"] == "finished");
        drop(sender);
        let finished = send_well(&file, &receiver.url, &[]);
        assert_eq!((&finished["already_there"], &finished["new_bytes"]), (&true.into(), &0.into()));
    }
}

#[test]
fn a_receipt_that_comes_together_with_the_end_of_the_connection_counts() {
    let place = Place::new();
    let bytes = random(1000, 12);
    let file = place.file("f", &bytes);
    for _ in 0..20 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let sender = Running::start(wsferry().arg("send").arg(&file).arg(url).arg("--json"));
        let mut peer = Peer::receive(&listener, &json!({"frame_limit": 32_768, "window": 1_000_000}));
        let digest = peer.hear_type("offer")["digest"].clone();
        peer.tell(&json!({"type": "accept", "transfer": 0}));
        peer.hear().expect("the chunk");
        peer.tell(&json!({"type": "ack", "sequence": 1}));
        // No goodbye, and the sender's own is never read.
        peer.tell(&json!({"type": "receipt", "files": [[0, digest]]}));
        drop(peer);
        let ended = sender.end();
        assert_eq!(ended.code(), 0, "{ended:?}");
        ended.event("finished");
    }
}

#[test]
fn a_sender_reconnects_by_itself_through_cuts_stalls_and_a_receiver_that_restarts() {
    let place = Place::new();
    let mut receiver = Receiver::start(&place, &[]);
    let address = receiver.address();
    // Connections that end early, each in another way, then as many good ones as it takes.
    let proxy = Proxy::start(address, |number| {
        let there = match number {
            0 | 2 | 4 => Plan { cut_after: Some(9_000_000), ..Plan::default() },
            1 => Plan { cut_after: Some(50), ..Plan::default() },
            3 => Plan { half_close_after: Some(9_000_000), ..Plan::default() },
            _ => Plan { rate: Some(60_000_000), ..Plan::default() },
        };
        (there, Plan::default())
    });
    let bytes = random(30 * B + 77, 11);
    let file = place.file("f", &bytes);
    let sender = Running::start(wsferry().arg("send").arg(&file).arg(proxy.url()).arg("--json"));
    sender
        .wait_for(|event| event["event"] == "progress" && event["acknowledged"].as_u64() > Some(40_000_000));
    receiver.running.kill();
    sender.wait_for(|event| event["event"] == "reconnecting" && event["attempt"].as_u64() > Some(1));
    let _receiver = Receiver::start_on(&place, &address.to_string(), &[]);
    let ended = sender.end();
    assert_eq!(ended.code(), 0, "{ended:?}");
    let finished = ended.event("finished");
    assert_eq!(finished["resumed_at"], 0, "the first connection found nothing: {finished}");
    assert!(finished["resent_bytes"].as_u64() < Some(6 * ((16 << 20) + B as u64)), "{finished}");
    assert!(place.received("f") == bytes);
    assert_eq!(place.listing(), ["f"]);
}

#[test]
fn a_receiver_that_stays_away_is_given_up_with_exit_code_3() {
    let place = Place::new();
    let mut receiver = Receiver::start(&place, &[]);
    let proxy = slow(&receiver);
    let file = place.file("f", &random(40 * B, 12));
    let mut command = wsferry();
    let sender =
        Running::start(command.arg("send").arg(&file).arg(proxy.url()).args(["--json", "--retry-for", "1s"]));
    sender.wait_for(|event| event["event"] == "progress");
    receiver.running.kill();
    sender.end().assert_error(3, &["gave up after", "attempts to reconnect", "same command"]);
}

#[test]
fn ctrl_c_works_at_once_during_a_backoff_and_during_a_stall() {
    let place = Place::new();
    let mut receiver = Receiver::start(&place, &[]);
    let file = place.file("f", &random(40 * B, 16));

    // The receiver is gone for good: the sender waits between two attempts.
    let proxy = slow(&receiver);
    let mut command = wsferry();
    let sender = Running::start(command.arg("send").arg(&file).arg(proxy.url()).arg("--json"));
    sender.wait_for(|event| event["event"] == "progress");
    receiver.running.kill();
    sender.wait_for(|event| event["event"] == "reconnecting" && event["attempt"].as_u64() > Some(4));
    let asked = std::time::Instant::now();
    sender.signal("-INT");
    sender.end().assert_error(130, &["same command"]);
    assert!(asked.elapsed() < std::time::Duration::from_secs(5), "the backoff's end was waited for");

    // Nothing moves any more, and nothing is closed.
    let receiver = Receiver::start(&place, &[]);
    let proxy = Proxy::start(receiver.address(), |_| {
        (Plan { stall_after: Some(20_000_000), ..Plan::default() }, Plan::default())
    });
    let mut command = wsferry();
    let sender = Running::start(command.arg("send").arg(&file).arg(proxy.url()).arg("--json"));
    sender
        .wait_for(|event| event["event"] == "progress" && event["acknowledged"].as_u64() > Some(10_000_000));
    let asked = std::time::Instant::now();
    sender.signal("-INT");
    sender.end().assert_error(130, &["same command"]);
    assert!(asked.elapsed() < std::time::Duration::from_secs(5), "the stall's end was waited for");
}

#[test]
fn a_connection_that_is_cut_between_two_files_is_made_again() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let files = [("a", 1_000_000), ("b", 2_000_000)].map(|(name, size)| place.file(name, &random(size, 19)));
    // The way back ends behind the first file's receipt: the second file's offer finds nobody.
    let proxy = Proxy::start(receiver.address(), |number| match number {
        0 => (Plan { cut_after: Some(1_337_000), ..Plan::default() }, Plan::default()),
        _ => (Plan::default(), Plan::default()),
    });
    let ended = Running::start(wsferry().arg("send").args(&files).arg(proxy.url()).arg("--json")).end();
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert!(place.received("a") == random(1_000_000, 19) && place.received("b") == random(2_000_000, 19));
}

#[test]
fn a_path_too_slow_for_a_chunk_within_the_stall_timeout_gets_smaller_ones() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--stall-timeout", "1s"]);
    let bytes = random(2_000_000, 20);
    let file = place.file("f", &bytes);
    // A frame of 2 MB takes four seconds.
    let proxy = Proxy::start(receiver.address(), |_| {
        (Plan { rate: Some(500_000), ..Plan::default() }, Plan::default())
    });
    let flags = ["--chunk-size", "1500KB", "--window", "1B", "--stall-timeout", "1s", "--retry-for", "20s"];
    let finished = send_well(&file, &proxy.url(), &flags);
    // They are small enough before the first one stalls.
    assert_eq!(finished["resent_bytes"], 0, "{finished}");
    assert!(place.received("f") == bytes);
}

#[test]
fn a_receiver_that_hangs_for_a_while_does_not_make_chunks_smaller() {
    let place = Place::new();
    let file = place.file("f", &random(4_000_000, 30));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let flags = ["--json", "--chunk-size", "192KiB", "--stall-timeout", "3s"];
    let _sender = Running::start(wsferry().arg("send").arg(&file).arg(url).args(flags));
    let accept = |peer: &mut Peer| {
        peer.hear_type("offer");
        peer.tell(&json!({"type": "accept", "transfer": 0}));
        std::iter::from_fn(|| peer.hear()).find(|frame| frame.starts_with('C')).expect("chunks flow").len()
    };
    let answer = || Peer::receive(&listener, &json!({"window": 1 << 20}));
    let mut peer = answer();
    let before = accept(&mut peer);
    peer.tell(&json!({"type": "ack", "sequence": 1}));
    drop(peer);
    // It takes connections, and no offer.
    for _ in 0..2 {
        let mut peer = answer();
        while peer.hear().is_some() {}
    }
    let mut peer = answer();
    assert!(accept(&mut peer) >= before);
}
