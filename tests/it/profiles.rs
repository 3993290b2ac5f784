//! `--profile`: what is listed, and that it takes effect on the wire.

use std::sync::atomic::Ordering;

use serde_json::Value;

use crate::gateway::{Gateway, Limits, TooLarge};
use crate::support::{Place, Receiver, Running, random, send_well, wsferry};

/// The most characters of a frame that a sender with these flags uses, and the connections that it takes, on a path that
/// carries so many and closes with 1009 beyond.
fn largest_frame(limit: usize, flags: &[&str]) -> (usize, usize) {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let limits = Limits { frame: Some((limit, TooLarge::Close(1009))), ..Limits::default() };
    let gateway = Gateway::start(receiver.address(), limits);
    let bytes = random(3_000_000, 81);
    send_well(&place.file("f", &bytes), &gateway.url(), flags);
    assert!(place.received("f") == bytes, "{flags:?}");
    (gateway.largest.load(Ordering::Relaxed), gateway.connections.load(Ordering::Relaxed))
}

#[test]
fn frames_have_the_size_of_the_profile_unless_another_is_given_by_hand() {
    let (largest, connections) = largest_frame(8192, &["--profile", "tomcat"]);
    assert!((8000..=8192).contains(&largest), "{largest}");
    assert_eq!(connections, 1, "nothing had to be found out");
    let (largest, _) = largest_frame(8192, &["--frame-limit", "4KiB", "--profile", "tomcat"]);
    assert!((4000..=4096).contains(&largest), "{largest}");
    let (largest, connections) = largest_frame(65_535, &["--profile", "apisix"]);
    assert!((65_000..=65_535).contains(&largest) && connections == 1, "{largest}, {connections}");
    // What the profile saves.
    let (largest, connections) = largest_frame(8192, &[]);
    assert!(largest > 8192 && connections > 1, "{largest}, {connections}");
}

#[test]
fn profiles_are_listed_with_what_they_set_and_why_and_whoever_says_so() {
    let listed = Running::start(wsferry().args(["probe", "--profiles", "--json"])).end();
    assert_eq!(listed.code(), 0, "{listed:?}");
    let said = Running::start(wsferry().args(["probe", "--profiles"])).end().lines.join("\n");
    let profiles = listed.events("profile");
    let guide = include_str!("../../src/cli/GUIDE.md");
    for name in ["apisix", "cloudflare", "heroku", "jupyter", "kong", "signalr", "tomcat"] {
        assert!(profiles.iter().any(|profile| profile["name"] == name), "{name}: {listed:?}");
        assert!(guide.contains(&format!("`{name}`")), "{name} is not in the guide");
    }
    for profile in &profiles {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        assert!(
            said.contains(&format!("{}: {}", text(&profile["name"]), text(&profile["path"]))),
            "{profile}"
        );
        for fact in profile["facts"].as_array().unwrap() {
            let flags = fact["flags"].as_str().unwrap_or("no flag");
            assert!(said.contains(&format!("  {flags}: {}", text(&fact["why"]))), "{fact}: {said}");
            assert!(said.contains(&text(&fact["source"])), "{fact}: {said}");
        }
    }
    let nowhere = Running::start(wsferry().arg("probe")).end();
    assert_eq!(nowhere.code(), 2, "a probe needs a URL: {nowhere:?}");
}

#[test]
fn a_profile_that_is_none_is_refused_with_those_that_are() {
    let ended = Running::start(wsferry().args(["send", "f", "ws://127.0.0.1:1", "--profile", "x"])).end();
    assert_eq!(ended.code(), 2, "{ended:?}");
    for word in ["apisix", "tomcat", "probe --profiles"] {
        assert!(ended.errors.contains(word), "{ended:?}");
    }
}
