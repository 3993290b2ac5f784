//! A sender that was told how fast to send.

use std::net::TcpListener;

use serde_json::json;

use crate::support::{Peer, Place, Receiver, Running, hello, message, random, send_well, wsferry};

#[test]
fn a_limit_holds_and_the_file_is_whole() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let bytes = random(400_000, 1);
    let finished = send_well(&place.file("f", &bytes), &receiver.url, &["--limit", "400kB/s"]);
    assert!(place.received("f") == bytes);
    // What goes at once is a tenth of a second at the most; a machine that is busy is slower.
    let seconds = finished["seconds"].as_f64().unwrap();
    assert!(seconds > 0.85, "{finished}");
}

#[test]
fn chunks_are_small_where_the_limit_is_and_the_bar_moves() {
    let place = Place::new();
    let file = place.file("f", &random(30_000, 2));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let mut command = wsferry();
    let running = Running::start(command.arg("send").arg(&file).args([
        &url,
        "--json",
        "--limit",
        "20kB/s",
        "--retry-for",
        "0s",
    ]));
    let mut peer = Peer::receive(&listener, &hello());
    let offer = peer.hear_type("offer");
    peer.tell(&json!({ "type": "accept", "transfer": offer["transfer"] }));
    // A twentieth of a second each: 1000 bytes less what makes no group of three.
    let mut came = 0;
    while came < 30 {
        let frame = peer.hear().unwrap();
        if message(&frame).is_none() {
            assert_eq!(frame.len(), 48 + 999 / 3 * 4);
            came += 1;
            peer.tell(&json!({ "type": "ack", "sequence": came }));
        }
    }
    let moves =
        |event: &serde_json::Value| (1..30_000).contains(&event["acknowledged"].as_u64().unwrap_or(0));
    running.wait_for(|event| event["event"] == "progress" && moves(event));
}

#[test]
fn a_limit_that_makes_no_sense_is_said() {
    for limit in ["0", "fast", "10MB/h"] {
        let mut command = wsferry();
        let ended =
            Running::start(command.args(["send", "Cargo.toml", "ws://127.0.0.1:1", "--limit", limit])).end();
        assert_eq!(ended.code(), 2, "{ended:?}");
        assert!(ended.errors.contains("--limit"), "{ended:?}");
    }
}
