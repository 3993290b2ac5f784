//! HTTP on the receiver's port: pages for people, balancers and monitors.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::hostile::{finish, frame, frame_as, offer, offer_as};
use crate::http::{ask, get, knock, upgrade};
use crate::proxy::{Plan, Proxy};
use crate::support::{Peer, Place, Receiver, Running, hello, random, send, send_well, wsferry};

#[test]
fn each_path_and_method_has_its_status() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--token", "secret", "--path", "/up"]);
    let (address, _) = receiver.url.strip_prefix("ws://").unwrap().split_once('/').unwrap();
    let address = address.parse().unwrap();
    let bearer = "Authorization: Bearer secret\r\n";
    let long = format!("X-Long: {}\r\n", "x".repeat(1 << 20));
    let host = "Host: x\r\n";
    for (line, headers, status, words) in [
        ("GET / HTTP/1.1", host, 200, "wsferry"),
        ("GET /healthz HTTP/1.1", host, 200, "ok"),
        ("GET /healthz?probe=1 HTTP/1.1", host, 200, "ok"),
        ("HEAD /healthz HTTP/1.1", host, 200, ""),
        // Balancers that speak as in 1996.
        ("GET /healthz HTTP/1.0", "", 200, "ok"),
        ("GET /metrics HTTP/1.1", host, 401, "token"),
        (
            "GET /metrics HTTP/1.1",
            "Host: x\r\nAuthorization: Bearer secret\r\n",
            200,
            "wsferry_connections_total",
        ),
        ("HEAD /metrics HTTP/1.1", "Host: x\r\nAuthorization: Bearer secret\r\n", 200, ""),
        ("GET /up HTTP/1.1", host, 426, "wsferry"),
        ("GET /up/f HTTP/1.1", host, 426, "wsferry"),
        ("GET /upload HTTP/1.1", host, 404, "nothing"),
        ("GET /favicon.ico HTTP/1.1", host, 404, "nothing"),
        ("GET /../etc/passwd HTTP/1.1", host, 404, "nothing"),
        ("POST / HTTP/1.1", "Host: x\r\nContent-Length: 3\r\n", 405, "cannot"),
        ("PUT /up/f HTTP/1.1", host, 405, "cannot"),
        ("DELETE /metrics HTTP/1.1", host, 405, "cannot"),
        ("OPTIONS / HTTP/1.0", "", 405, "cannot"),
        ("TRACE / HTTP/1.1", host, 405, "cannot"),
        ("GET /healthz HTTP/1.1", "", 400, "wsferry"),
        ("GET /healthz HTTP/1.1", "Host: x\r\nHost: y\r\n", 400, "wsferry"),
        ("GET /healthz HTTP/1.1", "Host: x\r\nOrigin: http://evil.example\r\n", 403, "wsferry"),
        ("GET /healthz HTTP/2.0", host, 400, "wsferry"),
        ("GET /healthz", host, 400, "wsferry"),
        ("GET /healthz HTTP/1.1", &long, 431, "wsferry"),
    ] {
        let reply = ask(address, format!("{line}\r\n{headers}\r\n").as_bytes());
        assert_eq!(reply.status, status, "{line}");
        assert!(reply.body.contains(words), "{line}: {reply:?}");
        assert_eq!(reply.body.is_empty(), line.starts_with("HEAD"), "{line}: {reply:?}");
        let length = reply.header("Content-Length").unwrap().parse::<usize>().unwrap();
        assert!(length > 0 && (length == reply.body.len() || line.starts_with("HEAD")), "{line}: {reply:?}");
        assert_eq!(reply.header("X-Content-Type-Options"), Some("nosniff"));
        assert_eq!(reply.header("Allow").is_some(), status == 405, "{line}");
        assert_eq!(reply.header("Upgrade").is_some(), status == 426, "{line}");
        assert_eq!(reply.header("WWW-Authenticate").is_some(), status == 401, "{line}");
    }
    assert_eq!(ask(address, &upgrade("/up", bearer.as_bytes())).status, 101);
}

#[test]
fn health_checks_leave_no_line_and_are_no_transfer() {
    let place = Place::new();
    for flags in [&["--json", "--once"][..], &["--once"]] {
        let mut command = wsferry();
        command.arg("receive").arg(place.inbox()).args(["--listen", "127.0.0.1:0"]).args(flags);
        let mut running = Running::start(&mut command);
        let line = running.line();
        let address = line.split("ws://").nth(1).unwrap().split(['"', ',']).next().unwrap().to_owned();
        for _ in 0..30 {
            let address = address.parse().unwrap();
            assert_eq!(get(address, "/healthz").body, "ok\n");
            assert_eq!(get(address, "/").status, 200);
            assert_eq!(get(address, "/wrong").status, 404);
            knock(address);
        }
        assert!(!running.has_ended());
        send_well(&place.file("f", b"the one"), &format!("ws://{address}"), &[]);
        let ended = running.end();
        assert_eq!((ended.code(), ended.errors.as_str()), (0, ""), "{ended:?}");
        let told = |word: &str| ended.lines.iter().any(|line| line.contains(word));
        assert!(!told("unserved") && !told("failed") && !told("ended before"), "{ended:?}");
        std::fs::remove_file(place.inbox().join("f")).unwrap();
    }
}

#[test]
fn while_it_drains_health_says_so_and_no_other_sender_is_let_in() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let (mut idle, mut peer) = (Peer::dial(&receiver.url), Peer::dial(&receiver.url));
    peer.tell(&offer("f", 6));
    peer.hear_type("accept");
    assert_eq!(get(receiver.address(), "/healthz").status, 200);
    receiver.running.signal("-HUP");
    assert_eq!(idle.hear_type("error")["code"], "shutdown");
    for _ in 0..3 {
        let reply = get(receiver.address(), "/healthz");
        assert_eq!((reply.status, reply.header("Retry-After")), (503, Some("5")), "{reply:?}");
        assert_eq!(ask(receiver.address(), &upgrade("/", b"")).status, 503);
    }
    // Many that say nothing keep it from nothing.
    let silent: Vec<_> = (0..40).map(|_| TcpStream::connect(receiver.address()).unwrap()).collect();
    peer.say(frame(0, 0, b"abcdef"));
    peer.tell(&finish(0, b"abcdef"));
    peer.hear_type("receipt");
    let start = std::time::Instant::now();
    drop(peer);
    assert_eq!(receiver.running.end().code(), 3);
    assert!(start.elapsed() < Duration::from_secs(5));
    drop(silent);
    assert_eq!(place.received("f"), b"abcdef");
}

/// Samples by name and labels.
pub fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let samples = lines.map(|line| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    });
    let mut all = BTreeMap::new();
    for (name, value) in samples {
        assert!(all.insert(name.clone(), value).is_none(), "{name} is there twice");
    }
    all
}

#[test]
fn the_counters_equal_what_the_events_said() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--plain"]);
    let url = &receiver.url;
    for number in 0..4 {
        let bytes = random(200_000 * number + 1, number as u64);
        send_well(&place.file(&format!("f{number}"), &bytes), url, &[]);
    }
    // There already; and another file of that name.
    send_well(&place.path("f3"), url, &[]);
    assert_eq!(send(&place.file("other", &random(5, 9)), url, &["--name", "f1"]).code(), 4);
    // Cut, and gone on with.
    let large = place.file("large", &random(20_000_000, 10));
    let proxy = Proxy::start(receiver.address(), |connection| {
        let cut = (connection == 0).then_some(12_000_000);
        (Plan { cut_after: cut, ..Plan::default() }, Plan::default())
    });
    send_well(&large, &proxy.url(), &[]);
    // A directory, a file without a protocol, one whose sender goes away, one that a stranger offers with a bad name.
    for name in ["dir/a", "dir/b", "dir/c"] {
        place.file(name, &random(3000, 11));
    }
    let sent = send(&place.path("dir"), url, &[]);
    assert_eq!(sent.code(), 0, "{sent:?}");
    let plain = place.file("plain", &random(70_000, 12));
    assert_eq!(send(&plain, &format!("{url}/plain"), &["--plain"]).code(), 0);
    let mut peer = Peer::dial(url);
    peer.tell(&offer_as(0, "..", 3));
    peer.hear_type("reject");
    peer.tell(&offer_as(1, "gone", 9_000_000));
    peer.hear_type("accept");
    // A chunk that was damaged on the way, and then came whole.
    let mut damaged = frame_as(1, 0, 0, &random(3000, 13)).into_bytes();
    *damaged.last_mut().unwrap() = if damaged.ends_with(b"A") { b'B' } else { b'A' };
    peer.say(String::from_utf8(damaged).unwrap());
    peer.hear_type("nak");
    peer.say(frame_as(1, 1, 0, &random(3000, 13)));
    peer.hear_type("ack");
    drop(peer);
    assert_eq!(ask(receiver.address(), &upgrade("/", b"Origin: http://evil.example\r\n")).status, 403);
    for _ in 0..5 {
        get(receiver.address(), "/healthz");
    }
    // What went away is told by then.
    let mut events = Vec::new();
    while events.last().is_none_or(|event: &Value| event["event"] != "failed" || event["name"] != "gone") {
        events.push(receiver.running.try_event().expect("it runs"));
    }
    let metrics = samples(&get(receiver.address(), "/metrics").body);
    receiver.running.signal("-TERM");
    let ended = receiver.running.end();
    events.extend(ended.lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap()));

    let of = |name: &str| metrics.get(name).copied().unwrap_or(0.0);
    let count = |fits: &dyn Fn(&Value) -> bool| events.iter().filter(|event| fits(event)).count() as f64;
    let is = |event: &Value, kind: &str| event["event"] == kind;
    let result = |word: &str| of(&format!("wsferry_transfers_total{{result=\"{word}\"}}"));
    assert_eq!(result("received"), count(&|e| is(e, "finished") && e["already_there"] == false));
    assert_eq!(result("already_there"), count(&|e| is(e, "finished") && e["already_there"] == true));
    let failed_with =
        |code: u64| count(&|e| is(e, "failed") && !e["name"].is_null() && e["exit_code"] == code);
    assert_eq!(result("refused"), failed_with(4));
    assert_eq!(result("interrupted"), failed_with(3));
    assert_eq!(of("wsferry_resumes_total"), count(&|e| is(e, "resumed")));
    assert!(result("received") >= 10.0 && result("interrupted") >= 2.0, "{metrics:?}");
    assert_eq!(result("refused"), 2.0);
    assert_eq!(of("wsferry_resumes_total"), 1.0);
    assert_eq!(of("wsferry_offers_refused_total{code=\"exists\"}"), 1.0);
    assert_eq!(of("wsferry_offers_refused_total{code=\"name\"}"), 1.0);
    assert_eq!(of("wsferry_damaged_chunks_total"), 1.0);
    assert_eq!(of("wsferry_transfers_running"), 0.0);
    assert_eq!(of("wsferry_connections_open"), 1.0, "the monitor's own");
    assert_eq!(of("wsferry_http_requests_total{path=\"/healthz\",status=\"200\"}"), 5.0);
    assert_eq!(of("wsferry_connections_refused_total{reason=\"origin\"}"), 1.0);
    // Each byte that stands in the inbox came, and what was cut off may have come twice.
    let new: f64 =
        events.iter().filter(|e| is(e, "finished")).map(|e| e["new_bytes"].as_f64().unwrap()).sum();
    let received = of("wsferry_received_bytes_total");
    let cut = 20_000_000.0 - new_of(&events, "large");
    assert!(received >= new, "{received} of {new}");
    assert!(received <= new + cut + 3.0 * 4_194_304.0 + 3000.0, "{received} of {new}, {cut} before the cut");
    assert!(of("wsferry_connections_total") >= 10.0);
}

fn new_of(events: &[Value], name: &str) -> f64 {
    let event = events.iter().find(|e| e["event"] == "finished" && e["name"] == name);
    event.unwrap()["new_bytes"].as_f64().unwrap()
}

#[test]
fn what_a_monitor_reads_follows_the_format_and_the_names_follow_the_conventions() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    send_well(&place.file("f", &random(1000, 1)), &receiver.url, &[]);
    send(&place.file("g", &random(1001, 1)), &receiver.url, &["--name", "f"]);
    get(receiver.address(), "/healthz");
    let reply = get(receiver.address(), "/metrics");
    assert_eq!(reply.header("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let mut kinds = BTreeMap::new();
    for line in reply.body.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(reply.body.contains(&format!("# HELP {name} ")), "{name} is not explained");
            kinds.insert(name.to_owned(), kind.to_owned());
        }
    }
    let guide = include_str!("../../src/cli/GUIDE.md");
    for (name, kind) in &kinds {
        assert!(name.starts_with("wsferry_"), "{name}");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name} {kind}");
        assert!(guide.contains(&format!("| `{name}`")), "{name} is not in the guide");
    }
    assert_eq!(kinds.len(), 11, "{kinds:?}");
    for name in samples(&reply.body).keys() {
        let bare = name.split('{').next().unwrap();
        assert!(kinds.contains_key(bare), "{name} has no type");
    }
}

#[test]
#[ignore = "needs promtool, of Debian's package prometheus"]
fn promtool_has_nothing_to_say_of_the_metrics() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    send_well(&place.file("f", &random(1000, 1)), &receiver.url, &[]);
    let mut peer = Peer::dial_silently(&receiver.url);
    peer.tell(&hello());
    peer.tell(&offer_as(0, "..", 3));
    peer.hear_type("reject");
    let text = get(receiver.address(), "/metrics").body;
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = promtool.spawn().expect("promtool is installed");
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}\n{text}", String::from_utf8_lossy(&said));
}
