//! Two senders of one name: one writes it, the other is refused or waits.

use std::net::TcpListener;

use serde_json::json;

use super::{B, send_until};
use crate::proxy::{Plan, Proxy};
use crate::support::{Peer, Place, Receiver, Running, random, send, send_well, wsferry};

#[test]
fn two_senders_of_one_name_the_second_is_refused_and_the_first_unharmed() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let proxy = Proxy::start(receiver.address(), |_| {
        (Plan { rate: Some(12_000_000), ..Plan::default() }, Plan::default())
    });
    let bytes = random(20 * B, 10);
    place.file("f", &bytes);
    let first = send_until(&place, "f", &proxy.url(), 1_000_000);
    send(&place.path("f"), &receiver.url, &[]).assert_error(4, &["another transfer is writing f"]);
    assert_eq!(first.end().code(), 0);
    assert!(place.received("f") == bytes);
}

#[test]
fn a_second_sender_can_wait_for_the_name() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let proxy = Proxy::start(receiver.address(), |_| {
        (Plan { rate: Some(12_000_000), ..Plan::default() }, Plan::default())
    });
    let bytes = random(20 * B, 13);
    let file = place.file("f", &bytes);
    let first = send_until(&place, "f", &proxy.url(), 1_000_000);
    let finished = send_well(&file, &receiver.url, &["--wait"]);
    assert_eq!(finished["already_there"], true, "the first one's file is the same: {finished}");
    assert_eq!(first.end().code(), 0);
}

#[test]
fn a_sender_that_waits_for_a_name_asks_again_also_when_the_connection_did_not_last() {
    let place = Place::new();
    let file = place.file("f", &random(1000, 13));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let sender = Running::start(wsferry().arg("send").arg(&file).arg(url).args(["--json", "--wait"]));
    for _ in 0..3 {
        let mut peer = Peer::receive(&listener, &json!({}));
        peer.hear_type("offer");
        peer.tell(&json!({"type": "reject", "transfer": 0, "code": "busy", "reason": "not yet"}));
        drop(peer);
        sender.wait_for(|event| event["event"] == "reconnecting");
    }
    Peer::receive(&listener, &json!({})).hear_type("offer");
}

#[test]
fn a_name_that_is_busy_is_refused_also_after_another_file_went_well() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    place.file("busy", &random(20 * B, 14));
    let proxy = Proxy::start(receiver.address(), |_| {
        (Plan { rate: Some(12_000_000), ..Plan::default() }, Plan::default())
    });
    let first = send_until(&place, "busy", &proxy.url(), 1_000_000);
    let good = place.file("good", b"good");
    let mut command = wsferry();
    command.arg("send").arg(good).arg(place.path("busy")).args([&receiver.url, "--json"]);
    Running::start(&mut command).end().assert_error(4, &["another transfer is writing busy"]);
    drop(first);
}
