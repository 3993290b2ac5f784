//! `wsferry probe` through gateways with the limits of real ones.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::gateway::{Gateway, Limits, TooLarge};
use crate::support::{Ended, Place, Receiver, Running, wsferry};

fn probe(url: &str, flags: &[&str]) -> Ended {
    Running::start(wsferry().args(["probe", "--json", url]).args(flags)).end()
}

/// What a probe of the path through a gateway with these limits says.
fn probed(limits: Limits, flags: &[&str]) -> Value {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let gateway = Gateway::start(receiver.address(), limits);
    let ended = probe(&gateway.url(), flags);
    assert_eq!(ended.code(), 0, "{limits:?}: {ended:?}");
    assert!(place.listing().is_empty(), "a probe leaves nothing: {:?}", place.listing());
    ended.events("probed").pop().expect("it tells what it found").clone()
}

#[test]
fn a_path_without_limits_carries_the_largest_frame_text_and_binary() {
    let found = probed(Limits::default(), &[]);
    assert_eq!(found["largest_frame"], 4_194_352, "{found}");
    assert_eq!((&found["text"], &found["binary"]), (&json!(true), &json!(true)), "{found}");
    assert_eq!((&found["refused_frame"], &found["flags"]), (&Value::Null, &json!([])), "{found}");
    let (round_trip, rate) = (&found["round_trip_seconds"], &found["bytes_per_second"]);
    assert!(round_trip.as_f64().unwrap() < 1.0 && rate.as_f64().unwrap() > 1e6, "{found}");
    assert!(found["program"].as_str().unwrap().starts_with("wsferry "), "{found}");
}

#[test]
fn the_largest_frame_is_found_whatever_becomes_of_larger_ones() {
    for (too_large, expected) in [
        (TooLarge::Close(1009), json!({ "kind": "closed", "code": 1009 })),
        (TooLarge::Close(1008), json!({ "kind": "closed", "code": 1008 })),
        (TooLarge::Reset, json!({ "kind": "lost" })),
        (TooLarge::Truncate, json!({ "kind": "damaged" })),
        (TooLarge::Stall, json!({ "kind": "stalled" })),
    ] {
        for limit in [8192, 65_535] {
            let found = probed(
                Limits { frame: Some((limit, too_large)), ..Limits::default() },
                &["--patience", "300ms"],
            );
            let largest = found["largest_frame"].as_u64().unwrap() as usize;
            assert!(
                largest <= limit && largest >= limit - limit / 128 - 16,
                "{limit} {too_large:?}: {found}"
            );
            assert!(found["refused_frame"].as_u64().unwrap() as usize > limit, "{found}");
            assert_eq!(found["refused"], expected, "{limit}: {found}");
            assert_eq!(found["flags"], json!([format!("--frame-limit {largest}")]), "{found}");
        }
    }
}

#[test]
fn the_lifetime_of_connections_and_an_idle_limit_are_told_if_they_show_while_it_watches() {
    let life = Limits { life: Some(Duration::from_millis(1500)), ..Limits::default() };
    let found = probed(life, &["--for", "5s"]);
    let lived = found["in_use"]["seconds"].as_f64().unwrap();
    assert!((0.5..4.0).contains(&lived) && !found["in_use"]["ended"].is_null(), "{found}");

    let idle = Limits { idle: Some(Duration::from_secs(1)), ..Limits::default() };
    let found = probed(idle, &["--for", "3s"]);
    let lived = found["idle"]["seconds"].as_f64().unwrap();
    assert!((0.5..2.9).contains(&lived) && !found["idle"]["ended"].is_null(), "{found}");
}

#[test]
fn a_path_that_carries_nothing_and_a_port_where_nobody_listens_are_told_apart() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let limits = Limits { frame: Some((1000, TooLarge::Reset)), ..Limits::default() };
    let gateway = Gateway::start(receiver.address(), limits);
    let ended = probe(&gateway.url(), &[]);
    assert_eq!((ended.code(), &ended.events("probed")[0]["largest_frame"]), (1, &json!(0)), "{ended:?}");

    let begun = Instant::now();
    let ended = probe("ws://127.0.0.1:1", &[]);
    ended.assert_error(1, &["cannot connect to 127.0.0.1:1"]);
    assert!(begun.elapsed() < Duration::from_secs(5), "nothing is tried again");
}
