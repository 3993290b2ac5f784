//! Bad input and bad surroundings: one line, an exit code, and nothing lost.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use serde_json::json;
use wsferry::protocol::BLOCK;

use crate::hostile::offer;
use crate::proxy::{Plan, Proxy};
use crate::support::{Peer, Place, Receiver, Running, message, random, send, send_well, wsferry};

const NOBODY: u32 = 65534;

fn is_root() -> bool {
    std::fs::metadata("/proc/self").map(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata)).unwrap()
        == 0
}

/// The program as a user to whom permissions apply, even where the tests run as root.
fn unprivileged(place: &Place) -> Command {
    let program = place.path("wsferry");
    if !program.exists() {
        // By another process: what tests beside this one start would inherit the copy while it is open to be written, and
        // what somebody may write to cannot be run.
        assert!(Command::new("cp").arg(wsferry().get_program()).arg(&program).status().unwrap().success());
        let dir = program.parent().unwrap();
        std::fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new(program);
    command.stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

#[test]
fn files_that_cannot_be_sent_are_named_with_the_reason() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let url = &receiver.url;
    send(&place.path("none"), url, &[]).assert_error(1, &["cannot open", "none", "No such file"]);
    assert!(Command::new("mkfifo").arg(place.path("pipe")).status().unwrap().success());
    send(&place.path("pipe"), url, &[]).assert_error(1, &["pipe is not sent: it is a named pipe"]);
    #[cfg(target_os = "linux")]
    send("/proc/cpuinfo".as_ref(), url, &[]).assert_error(1, &["/proc/cpuinfo", "no size", "copy it"]);
    let secret = place.file("secret", b"x");
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o000)).unwrap();
    Running::start(unprivileged(&place).arg("send").arg(secret).arg(url))
        .end()
        .assert_error(1, &["cannot open", "secret", "Permission denied"]);
    // One of several: the others go.
    let good = place.file("good", b"good");
    let send_two = || Running::start(wsferry().arg("send").arg(place.path("none")).arg(&good).arg(url)).end();
    let ended = send_two();
    ended.assert_error(1, &["none"]);
    assert_eq!(ended.lines.last().unwrap(), "1 of 2 files sent, 4 B new");
    assert_eq!(place.received("good"), b"good");
    assert_eq!(send_two().lines.last().unwrap(), "0 of 2 files sent, 1 already there, 0 B new");
    assert_eq!(send(&place.path("none"), url, &[]).event("failed")["name"], "none");
}

#[test]
fn command_lines_that_make_no_sense_are_usage_errors() {
    let place = Place::new();
    let file = place.file("f", b"x");
    for (url, words) in [
        ("ftp://127.0.0.1:9000", &["bad URL", "ws://"][..]),
        ("ws://127.0.0.1:99999", &["bad URL"]),
        ("ws://127.0.0.1:0", &["port"]),
        ("ws://me:SECRET@127.0.0.1:0?a=SECRET", &["bad URL ws://***@127.0.0.1:0?a=***", "port"]),
        ("f", &["bad URL", "ws://"]),
    ] {
        send(&file, url, &[]).assert_error(2, words);
    }
    for flags in [
        ["--chunk-size", "2B"],
        ["--frame-limit", "100B"],
        ["--window", "0B"],
        ["--exclude", "[a"],
        ["--include", "/"],
        ["--exclude-from", "/there/is/none"],
    ] {
        send(&file, "ws://127.0.0.1:9000", &flags).assert_error(2, &[flags[0]]);
    }
    for flags in [
        ["--chunk-size", "many"],
        ["--stall-timeout", "0s"],
        ["--name", "../x"],
        ["--name", "a/b"],
        ["--name", ".."],
    ] {
        let ended = send(&file, "ws://127.0.0.1:9000", &flags);
        assert_eq!(ended.code(), 2, "{ended:?}");
        assert!(ended.errors.contains(flags[0]), "{ended:?}");
    }
    Running::start(wsferry().arg("send").arg(&file)).end().assert_error(2, &["a file and a URL"]);
    assert_eq!(Running::start(wsferry().arg("send")).end().code(), 2);
    assert_eq!(Running::start(wsferry().arg("fly")).end().code(), 2);
}

#[test]
fn an_address_without_a_scheme_is_no_directory_unless_it_is_there_or_said_to_be_one() {
    let place = Place::new();
    let receive = |directory: &str| {
        let mut command = wsferry();
        command.args(["receive", directory, "--listen", "127.0.0.1:0", "--json"]).current_dir(place.path(""));
        Running::start(&mut command)
    };
    for address in ["127.0.0.1:9001", "localhost:9001", "[::1]:9001", "files.example.com:80"] {
        receive(address).end().assert_error(
            2,
            &[
                &format!("{address} has no scheme: ws://{address} dials it"),
                &format!("--listen {address} listens there, ./{address} is a directory"),
            ],
        );
        assert!(!place.path(address).exists());
    }
    std::fs::create_dir(place.path("there:9001")).unwrap();
    for directory in ["./127.0.0.1:9001", "there:9001", "a:b", "x:70000"] {
        receive(directory).wait_for(|event| event["event"] == "listening");
    }
}

#[test]
fn a_flag_of_another_command_is_told_with_whose_it_is_and_not_taken_for_a_value() {
    for (arguments, tip) in [
        (&["send", "--overwrite", "f", "ws://h"][..], "--overwrite is a flag of `wsferry receive`"),
        (&["hash", "--retry-for", "f"], "--retry-for is a flag of `wsferry send` and `wsferry receive`"),
        (&["hash", "--check", "f"], "checked by `b3sum --check`"),
        (&["send", "--no-such-flag", "f"], "unexpected argument '--no-such-flag' found"),
        (&["send", "-r", "d", "ws://h"], "directories are sent whole without -r"),
        (&["send", "-avz", "d", "ws://h"], "directories are sent whole without -a"),
        (&["send", "--recursive", "d", "ws://h"], "directories are sent whole without --recursive"),
    ] {
        let ended = Running::start(wsferry().args(arguments)).end();
        assert_eq!(ended.code(), 2, "{ended:?}");
        assert!(ended.errors.contains(tip) && !ended.errors.contains("as a value"), "{ended:?}");
    }
    // What is only misspelt is told as ever.
    let ended = Running::start(wsferry().args(["receive", "--overwrit"])).end();
    assert!(ended.errors.contains("a similar argument exists: '--overwrite'"), "{ended:?}");
}

#[test]
fn nobody_listening_is_said_with_the_address() {
    let place = Place::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let words = [&format!("127.0.0.1:{port}"), "refused", "wsferry receive"];
    let (file, url) = (place.file("f", b"x"), format!("ws://127.0.0.1:{port}"));
    send(&file, &url, &[]).assert_error(1, &words);
    // Flags may stand anywhere.
    Running::start(wsferry().arg("send").arg(&file).args(["--wait", &url])).end().assert_error(1, &words);
}

#[test]
fn a_plain_http_server_is_told_apart() {
    let place = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = [0; 4096];
        let _ = stream.read(&mut head);
        stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").unwrap();
    });
    send(&place.file("f", b"x"), &url, &[]).assert_error(1, &["HTTP 404"]);
}

#[test]
fn a_peer_that_hangs_up_during_the_handshake_has_nothing_to_resume() {
    let place = Place::new();
    let file = place.file("f", b"x");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    // Before the request is read, which resets the connection, and behind it.
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut head = [0; 4096];
            let _ = if number % 2 == 0 { Ok(0) } else { stream.unwrap().read(&mut head) };
        }
    });
    for _ in 0..6 {
        send(&file, &url, &[]).assert_error(1, &["handshake", "it hung up"]);
    }
}

/// A WebSocket server that sends back what it gets, with or without our subprotocol.
fn echo_server(subprotocol: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let Some(mut peer) = Peer::accept(&listener, subprotocol.then_some("wsferry.v1")) else {
            return;
        };
        while let Ok(message) = peer.socket.read() {
            if peer.socket.send(message).is_err() {
                return;
            }
        }
    });
    url
}

#[test]
fn an_echo_server_is_told_apart_even_if_it_agrees_to_the_subprotocol() {
    let place = Place::new();
    let file = place.file("f", b"x");
    send(&file, &echo_server(false), &[]).assert_error(1, &["not wsferry.v1", "no wsferry"]);
    send(&file, &echo_server(true), &[]).assert_error(1, &["broke the protocol", "`offer` came"]);
}

#[test]
fn a_plain_get_is_answered_with_what_this_port_is() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK"),
        // Something on the way has taken half of it away.
        ("GET / HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Key: x\r\n\r\n", "426 Upgrade Required"),
    ] {
        let mut stream = std::net::TcpStream::connect(receiver.address()).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
        assert!(answer.contains("wsferry send FILE"), "{answer}");
    }
    let file = place.file("f", b"still serving");
    send_well(&file, &receiver.url, &[]);
}

/// A receiver whose files cannot grow beyond that size: it stands for a disk that is full.
fn receiver_with_room_for(place: &Place, bytes: u64) -> Receiver {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -f {}; exec \"$@\"", bytes / 512), "sh"]);
    command.arg(wsferry().get_program()).arg("receive").arg(place.inbox());
    command.args(["--json", "--listen", "127.0.0.1:0"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Receiver::launch(&mut command)
}

#[test]
fn a_full_destination_is_said_and_the_same_command_goes_on_when_there_is_room() {
    let place = Place::new();
    let bytes = random(20_000_000, 1);
    let file = place.file("f", &bytes);
    let receiver = receiver_with_room_for(&place, 3 * BLOCK);
    send(&file, &receiver.url, &[]).assert_error(3, &["cannot write f", "File too large", "same command"]);
    // The receiver goes on serving.
    send_well(&place.file("small", b"small"), &receiver.url, &[]);
    drop(receiver);
    let receiver = Receiver::start(&place, &[]);
    let finished = send_well(&file, &receiver.url, &[]);
    assert!(finished["resumed_at"].as_u64() >= Some(6 << 20), "{finished}");
    assert!(place.received("f") == bytes);
}

#[test]
fn a_file_larger_than_the_free_space_is_refused_before_a_byte_moves() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    // A file of 8 TiB that had no holes is not to be had here.
    let mut peer = Peer::dial(&receiver.url);
    peer.tell(&offer("huge", 1 << 43));
    let reject = peer.hear_type("reject");
    assert_eq!(reject["code"], "too-large");
    assert!(reject["reason"].as_str().unwrap().contains("huge needs 8.80 TB more and "), "{reject}");
    assert_eq!(place.listing(), [""; 0]);
}

#[test]
fn a_destination_that_is_gone_or_closed_to_the_receiver_refuses_files_for_good() {
    let place = Place::new();
    let file = place.file("f", &random(5_000_000, 31));
    let receiver = Receiver::start(&place, &[]);
    std::fs::remove_dir_all(place.inbox()).unwrap();
    let ended = send(&file, &receiver.url, &[]);
    ended.assert_error(4, &["the directory that files are received into is gone"]);
    assert!(
        !ended.errors.contains("the same command") && ended.events("reconnecting").is_empty(),
        "{ended:?}"
    );
    let failed = receiver.running.wait_for(|event| event["event"] == "failed");
    assert!(failed["reason"].as_str().unwrap().contains("received into is gone"), "{failed}");

    let other = place.path("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::set_permissions(&other, PermissionsExt::from_mode(0o777)).unwrap();
    let mut command = unprivileged(&place);
    command.arg("receive").arg(&other).args(["--json", "--listen", "127.0.0.1:0"]);
    let receiver = Receiver::launch(&mut command);
    std::fs::set_permissions(&other, PermissionsExt::from_mode(0o555)).unwrap();
    let ended = send(&file, &receiver.url, &[]);
    ended.assert_error(4, &["cannot create f", "Permission denied"]);
    assert!(
        !ended.errors.contains("the same command") && ended.events("reconnecting").is_empty(),
        "{ended:?}"
    );
}

#[test]
fn a_destination_that_cannot_be_written_to_is_said_at_once() {
    let place = Place::new();
    std::fs::create_dir(place.inbox()).unwrap();
    std::fs::set_permissions(place.inbox(), PermissionsExt::from_mode(0o555)).unwrap();
    Running::start(unprivileged(&place).arg("receive").arg(place.inbox()).args(["--listen", "127.0.0.1:0"]))
        .end()
        .assert_error(1, &["cannot write to", "inbox", "Permission denied"]);
    Running::start(wsferry().arg("receive").arg(place.file("file", b"")).args(["--listen", "127.0.0.1:0"]))
        .end()
        .assert_error(1, &["cannot write to", "file", "not a directory"]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let other = place.path("other");
    let listen = |address: &str| {
        Running::start(wsferry().arg("receive").arg(&other).args(["--listen", address])).end()
    };
    listen(&address).assert_error(1, &["cannot listen on", &address]);
    for address in ["9000", ":9000", "ws://127.0.0.1:9000", "127.0.0.1:many"] {
        listen(address).assert_error(2, &[&format!("--listen is {address}"), "HOST:PORT"]);
    }
    assert!(!other.exists(), "nothing is made before the port is taken");
}

/// Sends 30 MB through a path that calls `change` in mid-file.
fn send_while(
    place: &Place,
    change: impl Fn(&std::path::Path) + Send + Sync + 'static,
) -> (Vec<u8>, crate::support::Ended) {
    // The receiver of one transfer waits for what the file became.
    let receiver = Receiver::start(place, &["--once"]);
    let file = place.file("f", &random(30_000_000, 2));
    let changed = file.clone();
    let call: Arc<dyn Fn() + Send + Sync> = Arc::new(move || change(&changed));
    let proxy = Proxy::start(receiver.address(), move |_| {
        (Plan { pause: Some((20_000_000, call.clone())), ..Plan::default() }, Plan::default())
    });
    let ended = send(&file, &proxy.url(), &["--window", "1MiB", "--retry-for", "20s"]);
    let received = receiver.running.end();
    assert_eq!(received.code(), ended.code(), "{received:?}");
    (std::fs::read(&file).unwrap_or_default(), ended)
}

#[test]
fn a_source_that_changes_once_while_it_is_sent_arrives_as_what_it_became() {
    let shrink = |path: &std::path::Path| {
        std::fs::File::options().write(true).open(path).unwrap().set_len(21_000_000).unwrap();
    };
    let grow = |path: &std::path::Path| {
        std::fs::File::options().append(true).open(path).unwrap().write_all(&random(5_000_000, 3)).unwrap();
    };
    let rewrite = |path: &std::path::Path| {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.write_all_at(b"another beginning", 7).unwrap();
    };
    // Of one that is small now the bytes are kept from when it is hashed on.
    let become_small = |path: &std::path::Path| {
        std::fs::File::options().write(true).open(path).unwrap().set_len(1000).unwrap();
    };
    // Each comes by at the first connection, and again at the next: the second time it changes nothing new.
    let once = |change: fn(&std::path::Path)| {
        let done = std::sync::atomic::AtomicBool::new(false);
        move |path: &std::path::Path| {
            if !done.swap(true, std::sync::atomic::Ordering::SeqCst) {
                change(path);
            }
        }
    };
    for change in [shrink as fn(&std::path::Path), grow, rewrite, become_small] {
        let place = Place::new();
        let (source, ended) = send_while(&place, once(change));
        assert_eq!(ended.code(), 0, "{ended:?}");
        assert!(place.received("f") == source);
        let sizes: Vec<_> = ended.events("started").iter().map(|started| started["size"].as_u64()).collect();
        assert_eq!((sizes.len(), sizes[1]), (2, Some(source.len() as u64)), "{ended:?}");
        let finished = ended.event("finished");
        assert_eq!(finished["blake3"], blake3::hash(&source).to_string());
        assert!(ended.event("reconnecting")["reason"].as_str().unwrap().contains("f changed"), "{ended:?}");
        assert_eq!(place.listing(), ["f"]);
    }
}

#[test]
fn a_source_that_is_removed_while_it_is_sent_is_given_up_at_once() {
    let place = Place::new();
    let (_, ended) = send_while(&place, |path| drop(std::fs::remove_file(path)));
    ended.assert_error(5, &["f changed while it was sent: it was removed"]);
}

#[test]
fn a_source_that_never_stops_changing_is_given_up_with_exit_code_5() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let file = place.file("f", &random(4_000_000, 4));
    // Slow enough to change it in the middle of each try.
    let proxy = Proxy::start(receiver.address(), |_| {
        (Plan { rate: Some(6_000_000), ..Plan::default() }, Plan::default())
    });
    let mut command = wsferry();
    command.arg("send").arg(&file).arg(proxy.url()).args(["--json", "--window", "100KiB"]);
    let sender = Running::start(&mut command);
    for _ in 0..4 {
        sender.wait_for(|event| event["event"] == "started");
        let mut growing = std::fs::File::options().append(true).open(&file).unwrap();
        growing.write_all(&random(3_200_000, 5)).unwrap();
    }
    sender.end().assert_error(5, &["f changed while it was sent", "bytes"]);
    assert_eq!(place.listing(), [".wsferry"]);
}

#[test]
fn names_that_could_do_harm_are_refused_on_the_way_out() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let bad = place.path("back\\slash");
    std::fs::write(&bad, b"x").unwrap();
    send(&bad, &receiver.url, &[]).assert_error(1, &["path separator", "--name"]);
    send_well(&bad, &receiver.url, &["--name", "slash"]);
    let bell = place.path("bell\x07");
    std::fs::write(&bell, b"x").unwrap();
    let ended = send(&bell, &receiver.url, &[]);
    ended.assert_error(1, &["bell\u{FFFD} ", "control character U+0007"]);
    assert!(!ended.errors.contains('\x07'));
    let latin = place.path("").join(std::ffi::OsStr::from_bytes(b"caf\xe9"));
    std::fs::write(&latin, b"x").unwrap();
    send(&latin, &receiver.url, &[]).assert_error(1, &["not UTF-8", "--name"]);
}

#[test]
fn a_close_with_1009_makes_chunks_smaller_until_they_fit() {
    use async_tungstenite::tungstenite::protocol::CloseFrame;

    // A gateway that takes 70,000 characters, and a receiver behind it that takes everything.
    const LIMIT: usize = 70_000;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let gateway = thread::spawn(move || {
        for closed in 0.. {
            let mut peer = Peer::receive(&listener, &json!({"window": 1_000_000}));
            let mut sequence = 0;
            while let Some(frame) = peer.hear() {
                if frame.len() > LIMIT {
                    let code = 1009.into();
                    let _ = peer.socket.close(Some(CloseFrame { code, reason: "too big".into() }));
                    while peer.socket.read().is_ok() {}
                    break;
                }
                if frame.starts_with('C') {
                    sequence += 1;
                    peer.tell(&json!({"type": "ack", "sequence": sequence}));
                    continue;
                }
                let message = message(&frame).unwrap();
                match message["type"].as_str().unwrap() {
                    "offer" => peer.tell(&json!({"type": "accept", "transfer": 0})),
                    "finish" => {
                        peer.tell(&json!({"type": "receipt", "files": [[0, message["digest"]]]}));
                        return closed;
                    }
                    _ => {}
                }
            }
        }
        unreachable!("it ends with a receipt")
    });
    let place = Place::new();
    send_well(&place.file("f", &random(4_000_000, 6)), &url, &["--chunk-size", "192KiB"]);
    // 48 KiB fit in Base64, 96 KiB do not, and are not tried again so soon.
    assert_eq!(gateway.join().unwrap(), 1);
}

#[test]
fn a_close_code_is_told_also_when_the_gateway_hangs_up_on_what_is_still_being_written() {
    use async_tungstenite::tungstenite::protocol::CloseFrame;

    let place = Place::new();
    let file = place.file("f", &random(40_000_000, 8));
    for _ in 0..10 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let flags = ["--json", "--retry-for", "0s"];
        let sender = Running::start(wsferry().arg("send").arg(&file).arg(url).args(flags));
        let mut peer = Peer::receive(&listener, &json!({"window": 1 << 26}));
        peer.hear_type("offer");
        peer.tell(&json!({"type": "accept", "transfer": 0}));
        peer.socket.get_mut().read_exact(&mut [0; 100_000]).unwrap();
        peer.socket.close(Some(CloseFrame { code: 1009.into(), reason: "".into() })).unwrap();
        // With unread bytes: the sender's next write fails.
        drop(peer);
        sender.end().assert_error(3, &["code 1009"]);
    }
}

#[test]
fn a_block_whose_last_bytes_could_not_be_written_is_not_in_the_journal() {
    let place = Place::new();
    let file = place.file("f", &random(20_000_000, 1));
    let receiver = receiver_with_room_for(&place, 3 * BLOCK - 512);
    send(&file, &receiver.url, &[]).assert_error(3, &["cannot write f"]);
    receiver.running.wait_for(|event| event["event"] == "failed");
    let partials = std::fs::read_dir(place.inbox().join(".wsferry")).unwrap();
    let journal =
        partials.map(|entry| entry.unwrap().path()).find(|path| path.extension().unwrap() == "journal");
    let slots = (std::fs::metadata(journal.unwrap()).unwrap().len() - 1024) / 104;
    assert!(slots <= 2, "it has {slots} blocks");
}
