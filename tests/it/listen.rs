//! Who may reach a receiver: addresses, tokens, paths, proxies, and how much of it each gets.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::hostile::{finish, frame, offer, offer_as};
use crate::http::{ask, deliver, dial, get, hear_type, tell, upgrade};
use crate::support::{PATIENCE, Peer, Place, Receiver, Running, hello, random, send, send_well, wsferry};

const TOKEN: &str = "c0rrect-horse.battery~staple";

/// A WebSocket that says the token.
fn dial_with(receiver: &Receiver, authorization: &str) -> tungstenite_socket::Socket {
    let stream = TcpStream::connect(receiver.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    dial(stream, &receiver.url, Some("wsferry.v1"), &[("Authorization", authorization)])
}

mod tungstenite_socket {
    pub type Socket = async_tungstenite::tungstenite::WebSocket<std::net::TcpStream>;
}

#[test]
fn hostile_tokens_are_refused_before_the_upgrade_and_a_running_transfer_is_unharmed() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--token", TOKEN]);
    let mut running = dial_with(&receiver, &format!("Bearer {TOKEN}"));
    tell(&mut running, &hello());
    tell(&mut running, &offer("f", 6));
    hear_type(&mut running, "accept");

    let long = "x".repeat(8000);
    let header = |value: &[u8]| [b"Authorization: ", value, b"\r\n"].concat();
    let right = format!("Bearer {TOKEN}");
    let twice = [header(right.as_bytes()), header(right.as_bytes())].concat();
    for (headers, status) in [
        (Vec::new(), 401),
        (header(b""), 401),
        (header(b"Bearer"), 401),
        (header(b"Bearer wrong"), 401),
        (header(format!("Bearer {}", &TOKEN[..TOKEN.len() - 1]).as_bytes()), 401),
        (header(format!("Bearer {TOKEN}x").as_bytes()), 401),
        (header(format!("Bearer {}", TOKEN.to_uppercase()).as_bytes()), 401),
        (header(format!("Bearer {long}").as_bytes()), 401),
        (header(b"Bearer \xff\xfe\x80"), 401),
        (header("Bearer c0rrect-horse.battery~st\u{e4}ple".as_bytes()), 401),
        (header(format!("Basic {TOKEN}").as_bytes()), 401),
        (header(TOKEN.as_bytes()), 401),
        (twice, 401),
        (format!("X-Authorization: {right}\r\n").into_bytes(), 401),
        (header(b"Bearer a\x00b"), 400),
        (header(format!("Bearer {}", "x".repeat(40_000)).as_bytes()), 431),
        (header(right.as_bytes()), 101),
        (header(format!("bearer {TOKEN}").as_bytes()), 101),
    ] {
        let reply = ask(receiver.address(), &upgrade("/", &headers));
        assert_eq!(reply.status, status, "{:?}", String::from_utf8_lossy(&headers));
        let challenge = reply.header("WWW-Authenticate");
        assert_eq!(challenge.is_some_and(|said| said.starts_with("Bearer")), status == 401, "{reply:?}");
        assert!(!reply.head.contains("Sec-WebSocket-Accept") || status == 101, "{reply:?}");
    }
    // In a query it would be in every log.
    assert_eq!(ask(receiver.address(), &upgrade(&format!("/?token={TOKEN}"), b"")).status, 401);

    running.send(frame(0, 0, b"abcdef").into()).unwrap();
    tell(&mut running, &finish(0, b"abcdef"));
    hear_type(&mut running, "receipt");
    assert_eq!(place.received("f"), b"abcdef");
}

#[test]
fn a_token_comes_from_a_flag_a_file_or_the_environment_and_is_never_shown() {
    let place = Place::new();
    let file = place.file("token", format!("{TOKEN}\n").as_bytes());
    let file = file.to_str().unwrap();
    for (flags, variable) in
        [(&["--token", TOKEN][..], None), (&["--token-file", file], None), (&[], Some(TOKEN))]
    {
        let mut command = wsferry();
        command.arg("receive").arg(place.inbox()).args(["-vv", "--listen", "0.0.0.0:0"]).args(flags);
        command.envs(variable.map(|token| ("WSFERRY_TOKEN", token)));
        let running = Running::start(&mut command);
        let line = running.line();
        let port = line.split(',').next().unwrap().rsplit(':').next().unwrap();
        let address: SocketAddr = format!("127.0.0.1:{port}").parse().unwrap();
        let right = format!("Authorization: Bearer {TOKEN}\r\n");
        assert_eq!(ask(address, &upgrade("/", right.as_bytes())).status, 101, "{flags:?}");
        assert_eq!(ask(address, &upgrade("/", b"")).status, 401, "{flags:?}");
        assert_eq!(get(address, "/metrics").status, 401);
        running.signal("-TERM");
        let ended = running.end();
        let said = format!("{line}{:?}{}", ended.lines, ended.errors);
        assert!(!said.contains(TOKEN) && !said.contains("staple"), "{said}");
        assert!(ended.errors.contains("the token can be read on its way"), "{said}");
        for line in &ended.lines {
            assert!(line.contains("wsferry send --token-file TOKEN-FILE FILE ws://"), "{line}");
        }
    }
    for (flags, word) in [
        (&["--token", ""][..], "empty"),
        (&["--token", "two words"], "visible ASCII"),
        (&["--token-file", "/does/not/exist"], "/does/not/exist"),
    ] {
        let ended = Running::start(wsferry().arg("receive").arg(place.inbox()).args(flags)).end();
        ended.assert_error(2, &[word]);
    }
}

#[test]
fn listening_for_other_machines_wants_a_token_or_a_word() {
    let place = Place::new();
    let start = |listen: &str, flags: &[&str]| {
        let mut command = wsferry();
        command.arg("receive").arg(place.inbox()).args(["--json", "--listen", listen]).args(flags);
        Running::start(&mut command)
    };
    let refused = start("0.0.0.0:0", &[]).end();
    refused.assert_error(2, &["other machines", "write files", "--token-file", "--open"]);
    assert!(!place.inbox().exists(), "nothing was made");
    for (listen, flags) in [
        ("0.0.0.0:0", &["--open"][..]),
        ("0.0.0.0:0", &["--token", TOKEN]),
        ("127.0.0.1:0", &[]),
        ("127.8.8.8:0", &[]),
        ("localhost:0", &[]),
    ] {
        let running = start(listen, flags);
        let listening = running.wait_for(|event| event["event"] == "listening");
        let urls = listening["urls"].as_array().unwrap();
        let interfaces = if_there(listen);
        assert_eq!(urls.len(), interfaces, "{listening}");
    }
    for listen in ["9000", "ws://127.0.0.1:0", "unix:", "127.0.0.1:port"] {
        start(listen, &[]).end().assert_error(2, &["--listen is", "expected HOST:PORT", "unix:PATH"][..1]);
    }
}

/// How many addresses of IPv4 others can dial.
fn if_there(listen: &str) -> usize {
    let text = std::process::Command::new("ip").args(["-4", "-o", "addr"]).output();
    let Ok(text) = text.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()) else {
        panic!("ip is needed to count the interfaces")
    };
    let others = text.lines().filter(|line| !line.contains(" 127.") && !line.contains(" 169.254."));
    if listen.starts_with("0.0.0.0") { others.count() } else { 0 }
}

#[test]
fn an_address_that_cannot_be_listened_on_is_told_with_what_helps() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (taken, foreign) = (taken.local_addr().unwrap().to_string(), "192.0.2.1:0".to_owned());
    for (address, words) in [
        (taken, &["in use", "another `wsferry receive` may be running", "--listen HOST:PORT"]),
        (foreign, &["cannot listen on 192.0.2.1:0", "no address of this machine", "--listen 0.0.0.0:PORT"]),
    ] {
        let mut command = wsferry();
        command.arg("receive").arg(place.inbox()).args(["--open", "--listen", &address]);
        Running::start(&mut command).end().assert_error(1, words);
    }
}

#[test]
fn localhost_serves_both_families_on_one_port() {
    let place = Place::new();
    let receiver = Receiver::start_on(&place, "localhost:0", &[]);
    let has_both = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    let port = receiver.url.rsplit(':').next().unwrap().to_owned();
    assert_eq!(receiver.url.starts_with("ws://localhost:"), has_both, "{}", receiver.url);
    let hosts = if has_both { &["127.0.0.1", "[::1]"][..] } else { &["127.0.0.1"] };
    // Many at a time, so that neither socket is forgotten for the other.
    let senders: Vec<_> = (0..10)
        .flat_map(|round| hosts.iter().enumerate().map(move |(at, host)| (round * 2 + at, host)))
        .map(|(number, host)| {
            let file = place.file(&format!("f{number}"), &random(10_000, number as u64));
            let url = format!("ws://{host}:{port}");
            (number, Running::start(wsferry().arg("send").arg(file).arg(url)))
        })
        .collect();
    for (number, sender) in senders {
        let ended = sender.end();
        assert_eq!(ended.code(), 0, "{ended:?}");
        assert!(place.received(&format!("f{number}")) == random(10_000, number as u64));
    }
    // A port that is taken in one family is not half of it.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("localhost:{}", taken.local_addr().unwrap().port());
    let ended = Running::start(wsferry().arg("receive").arg(place.inbox()).args(["--listen", &listen])).end();
    ended.assert_error(1, &["cannot listen", "in use"]);
}

#[test]
fn a_unix_socket_is_private_replaces_only_a_dead_one_and_goes_with_the_program() {
    let place = Place::new();
    let path = place.path("socket");
    let listen = format!("unix:{}", path.display());
    let command = || {
        let mut command = wsferry();
        command.arg("receive").arg(place.inbox()).args(["--json", "--listen", &listen]);
        command
    };
    let deliver_to = |name: &str| {
        let stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        deliver(&mut dial(stream, "ws://localhost/", Some("wsferry.v1"), &[]), name, b"over a socket");
        assert_eq!(place.received(name), b"over a socket");
    };
    let mut receiver = Receiver::launch(&mut command());
    assert_eq!(receiver.url, listen);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{mode:o}");
    deliver_to("first");
    Running::start(&mut command()).end().assert_error(1, &["another program listens there"]);
    deliver_to("second");

    receiver.running.kill();
    assert!(path.exists());
    let receiver = Receiver::launch(&mut command());
    deliver_to("third");
    receiver.running.signal("-TERM");
    assert_eq!(receiver.running.end().code(), 3);
    assert!(!path.exists());

    std::fs::write(&path, "precious").unwrap();
    Running::start(&mut command()).end().assert_error(1, &["no socket is there"]);
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[test]
fn below_a_prefix_is_the_only_place_for_websockets() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--path", "/in/box/", "--plain"]);
    assert!(receiver.url.ends_with("/in/box"), "{}", receiver.url);
    let base = receiver.url.strip_suffix("/in/box").unwrap().to_owned();
    let address: SocketAddr = base.strip_prefix("ws://").unwrap().parse().unwrap();
    for (path, status) in [
        ("/in/box", 101),
        ("/in/box/", 101),
        ("/in/box/deeper?a=b", 101),
        ("/in/box?a=b", 101),
        ("/", 404),
        ("/in", 404),
        ("/in/boxes", 404),
        ("/IN/BOX", 404),
        ("//in/box", 404),
        ("/in/../in/box", 404),
        ("/healthz", 404),
    ] {
        assert_eq!(ask(address, &upgrade(path, b"")).status, status, "{path}");
    }
    send_well(&place.file("f", &random(100_000, 1)), &receiver.url, &[]);
    assert!(place.received("f") == random(100_000, 1));
    // The prefix is no name.
    for (url, name) in [("/in/box", "received-0001.bin"), ("/in/box/photo.jpg", "photo.jpg")] {
        let file = place.file("any", &random(1000, 2));
        let sent = send(&file, &format!("{base}{url}"), &["--plain"]);
        assert_eq!(sent.code(), 0, "{sent:?}");
        assert!(place.received(name) == random(1000, 2), "{name}");
    }
    let bad = Running::start(wsferry().args(["receive", "--path", "healthz"])).end();
    assert_eq!(bad.code(), 2);
}

#[test]
fn a_websocket_without_its_subprotocol_is_taken_as_ours_only_if_that_is_asked_for() {
    let place = Place::new();
    for (flags, taken) in [(&[][..], false), (&["--no-subprotocol"], true)] {
        let receiver = Receiver::start(&place, flags);
        let without = String::from_utf8(upgrade("/", b"")).unwrap();
        let without = without.replace("Sec-WebSocket-Protocol: wsferry.v1\r\n", "");
        let reply = ask(receiver.address(), without.as_bytes());
        assert_eq!(reply.status, if taken { 101 } else { 426 });
        assert_eq!(reply.header("Sec-WebSocket-Protocol").is_some(), !taken, "{reply:?}");
        if taken {
            let stream = TcpStream::connect(receiver.address()).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            deliver(&mut dial(stream, &receiver.url, None, &[]), "stripped", b"as if it were named");
            assert_eq!(place.received("stripped"), b"as if it were named");
        } else {
            send(&place.file("f", b"x"), &receiver.url, &["--no-subprotocol"])
                .assert_error(1, &["HTTP 426", "start the receiver with --no-subprotocol too"]);
        }
        send_well(&place.file("f", b"named"), &receiver.url, &[]);
    }
    let both = Running::start(wsferry().args(["receive", "--no-subprotocol", "--plain"])).end();
    assert_eq!(both.code(), 2);
}

#[test]
fn a_file_above_the_limit_or_into_the_room_that_is_kept_is_refused_before_a_byte() {
    let place = Place::new();
    let small = place.file("small", &random(1000, 1));
    let large = place.file("large", &random(1001, 2));
    let receiver = Receiver::start(&place, &["--max-file-size", "1000", "--plain"]);
    send_well(&small, &receiver.url, &[]);
    let sent = send(&large, &receiver.url, &[]);
    sent.assert_error(4, &["large", "1001", "1000 bytes at most"]);
    let sent = send(&large, &format!("{}/large", receiver.url), &["--plain"]);
    assert_ne!(sent.code(), 0, "{sent:?}");
    assert_eq!(place.listing(), ["small"]);

    let receiver = Receiver::start(&place, &["--keep-free", "1000PB", "--plain"]);
    let sent = send(&large, &receiver.url, &[]);
    sent.assert_error(4, &["large", "0 B are free"]);
    assert_ne!(send(&large, &format!("{}/large", receiver.url), &["--plain"]).code(), 0);
    assert_eq!(place.listing(), ["small"]);
}

#[test]
fn unfinished_transfers_are_limited_and_those_that_go_on_are_not_turned_away() {
    const LARGE: usize = 4 << 20;
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--max-partials", "1"]);
    let mut peer = Peer::dial(&receiver.url);
    peer.tell(&offer_as(0, "one", LARGE as u64));
    peer.hear_type("accept");
    peer.tell(&offer_as(1, "two", LARGE as u64));
    let reject = peer.hear_type("reject");
    assert_eq!((&reject["transfer"], &reject["code"]), (&1.into(), &"busy".into()), "{reject}");
    // What fits one block leaves nothing behind.
    peer.tell(&offer_as(2, "little", 3));
    assert_eq!(peer.hear_type("accept")["transfer"], 2);
    peer.say(frame(0, 0, &random(30_000, 1)));
    drop(peer);

    // It comes back, and one that is new comes in vain, until the first is whole.
    let mut peer = Peer::dial(&receiver.url);
    let mut answers = (0..).map(|transfer| {
        peer.tell(&offer_as(transfer, "one", LARGE as u64));
        loop {
            let text = peer.hear().expect("an answer");
            let Some(message) = crate::support::message(&text) else { continue };
            match message["type"].as_str() {
                Some("accept") => break true,
                // The first connection may still be putting its file away.
                Some("reject") => break message["code"] != "busy",
                _ => {}
            }
        }
    });
    assert!(answers.any(|is_accepted| is_accepted));
    drop(peer);
    let file = place.file("two", &random(LARGE, 2));
    let sent = send(&file, &receiver.url, &["--retry-for", "0s"]);
    assert_eq!(sent.code(), 4, "{sent:?}");
    send_well(&place.file("one", &random(LARGE, 1)), &receiver.url, &["--retry-for", "1min"]);
    send_well(&file, &receiver.url, &[]);
    assert_eq!(place.listing(), ["one", "two"]);
}

#[test]
fn connections_beyond_the_limit_wait_and_those_of_one_address_are_refused() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--max-connections", "2"]);
    let (first, _second) = (Peer::dial(&receiver.url), Peer::dial(&receiver.url));
    let file = place.file("f", b"waits");
    let mut waiting = Running::start(wsferry().arg("send").arg(&file).arg(&receiver.url));
    // It is connected, and nobody answers it.
    let mut stranger = TcpStream::connect(receiver.address()).unwrap();
    stranger.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    stranger.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(stranger.read(&mut [0; 16]).is_err());
    assert!(!waiting.has_ended());
    drop(first);
    assert_eq!(waiting.end().code(), 0);

    let receiver = Receiver::start(&place, &["--max-connections-per-address", "2"]);
    let (first, mut second) = (Peer::dial(&receiver.url), Peer::dial(&receiver.url));
    for _ in 0..3 {
        let reply = ask(receiver.address(), &upgrade("/", b""));
        assert_eq!(reply.status, 429, "{reply:?}");
        assert_eq!(reply.header("Retry-After"), Some("5"));
    }
    assert_eq!(get(receiver.address(), "/healthz").status, 200, "a monitor is no sender");
    let other = TcpStream::connect_timeout(&receiver.address(), PATIENCE);
    drop(other);
    drop(first);
    let deadline = Instant::now() + PATIENCE;
    while ask(receiver.address(), &upgrade("/", b"")).status != 101 {
        assert!(Instant::now() < deadline, "its place is free");
    }
    second.tell(&offer("g", 3));
    second.hear_type("accept");
    second.say(frame(0, 0, b"abc"));
    second.tell(&finish(0, b"abc"));
    second.hear_type("receipt");
    let metrics = get(receiver.address(), "/metrics").body;
    assert!(metrics.contains("wsferry_connections_refused_total{reason=\"address\"}"), "{metrics}");
}

#[test]
fn slow_handshakes_are_cut_in_time_and_harm_nobody() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--handshake-timeout", "300ms"]);
    let start = Instant::now();
    let mut slow: Vec<_> = [&b""[..], b"G", b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"]
        .iter()
        .map(|bytes| {
            let mut stream = TcpStream::connect(receiver.address()).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(bytes).unwrap();
            stream
        })
        .collect();
    send_well(&place.file("f", &random(100_000, 1)), &receiver.url, &[]);
    for stream in &mut slow {
        assert_eq!(stream.read(&mut [0; 16]).unwrap_or(0), 0);
    }
    assert!(start.elapsed() >= Duration::from_millis(300) && start.elapsed() < Duration::from_secs(9));
    let failed = receiver.running.wait_for(|event| event["event"] == "failed");
    assert!(failed["reason"].as_str().unwrap().contains("handshake"), "{failed}");
    let metrics = get(receiver.address(), "/metrics").body;
    assert!(metrics.contains("wsferry_connections_refused_total{reason=\"timeout\"} 3"), "{metrics}");
}

#[test]
fn who_calls_is_what_a_trusted_proxy_says_and_what_no_other_says() {
    let place = Place::new();
    let said = [("X-Forwarded-For", "6.6.6.6, 203.0.113.9, 127.0.0.1")];
    for (flags, peer) in [
        (&["--trust-proxy", "127.0.0.0/8"][..], "203.0.113.9"),
        (&["--trust-proxy", "10.0.0.0/8", "--trust-proxy", "127.0.0.1"], "203.0.113.9"),
        (&["--trust-proxy", "10.0.0.0/8"], "127.0.0.1:"),
        (&[], "127.0.0.1:"),
    ] {
        let receiver = Receiver::start(&place, flags);
        let stream = TcpStream::connect(receiver.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        deliver(&mut dial(stream, &receiver.url, Some("wsferry.v1"), &said), "f", b"whose?");
        let started = receiver.running.wait_for(|event| event["event"] == "started");
        assert!(started["peer"].as_str().unwrap().starts_with(peer), "{flags:?}: {started}");
        std::fs::remove_file(place.inbox().join("f")).unwrap();
    }
    // Each of those behind it has a count of its own.
    let flags = ["--trust-proxy", "127.0.0.1", "--max-connections-per-address", "1"];
    let receiver = Receiver::start(&place, &flags);
    let from = |address: &str| {
        let mut stream = TcpStream::connect(receiver.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let header = format!("X-Forwarded-For: {address}\r\n");
        stream.write_all(&upgrade("/", header.as_bytes())).unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        (stream, String::from_utf8_lossy(&answer[9..]).into_owned())
    };
    let (_first, one) = from("203.0.113.1");
    let (_second, other) = from("203.0.113.2");
    let (_third, again) = from("203.0.113.1");
    assert_eq!([one, other, again], ["101", "101", "429"]);
}

#[test]
fn the_log_tells_of_connections_as_text_or_json_and_of_no_payload() {
    let place = Place::new();
    let payload = b"the payload that nobody shall read in a log";
    for (format, is_json) in [("text", false), ("json", true)] {
        let receiver = Receiver::start(&place, &["-vv", "--log-format", format, "--token", TOKEN]);
        let mut socket = dial_with(&receiver, &format!("Bearer {TOKEN}"));
        deliver(&mut socket, format, payload);
        assert_eq!(get(receiver.address(), "/healthz").status, 200);
        receiver.running.signal("-TERM");
        let ended = receiver.running.end();
        let lines: Vec<&str> = ended.errors.lines().collect();
        assert!(lines.len() >= 3, "{lines:?}");
        for line in &lines {
            let parsed = serde_json::from_str::<serde_json::Value>(line);
            assert_eq!(parsed.is_ok(), is_json, "{line}");
        }
        let said = ended.errors.as_str();
        assert!(said.contains("/healthz") && said.contains("open") && said.contains("closed"), "{said}");
        assert!(!said.contains("nobody shall") && !said.contains("staple"), "{said}");
    }
    // By itself it says nothing.
    let receiver = Receiver::start(&place, &[]);
    send_well(&place.file("quiet", payload), &receiver.url, &[]);
    receiver.running.signal("-TERM");
    assert_eq!(receiver.running.end().errors, "");
}
