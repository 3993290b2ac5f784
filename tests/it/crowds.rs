//! Many peers at a time that want much or nothing, beside a transfer that is to go on unharmed.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::gateway::{Gateway, Limits};
use crate::hostile::{footprint, offer};
use crate::http::upgrade;
use crate::support::{PATIENCE, Peer, Place, Receiver, Running, random, send_well, wsferry};

/// The most memory that a process has had, in KiB.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A transfer that takes a while, and what is done meanwhile: it ends well, and nothing of it was sent twice.
fn beside(receiver: &Receiver, place: &Place, size: usize, rate: u64, work: impl FnOnce()) {
    let bytes = random(size, 141);
    let file = place.file("beside", &bytes);
    let gateway = Gateway::start(receiver.address(), Limits { rate: Some(rate), ..Limits::default() });
    let mut sending = Running::start(wsferry().arg("send").arg(&file).arg(gateway.url()).arg("--json"));
    sending.wait_for(|event| event["event"] == "started");
    work();
    assert!(!sending.has_ended(), "it was to run beside all that");
    let ended = sending.end_within(2 * PATIENCE);
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert_eq!(ended.event("finished")["resent_bytes"], 0, "{ended:?}");
    assert_eq!(gateway.connections.load(Ordering::Relaxed), 1);
    assert!(place.received("beside") == bytes);
}

/// What comes back for bytes that go out at once: the status line's number, if there is one.
fn status(receiver: &Receiver, bytes: &[u8]) -> Option<u16> {
    let mut stream = TcpStream::connect(receiver.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let bytes = bytes.to_vec();
    // It may hang up in the middle.
    let writing = thread::spawn(move || writer.write_all(&bytes));
    let mut answer = [0; 12];
    let read = stream.read_exact(&mut answer);
    drop(stream);
    let _ = writing.join().unwrap();
    read.ok().map(|()| std::str::from_utf8(&answer[9..]).unwrap().parse().unwrap())
}

#[test]
fn heads_of_a_megabyte_and_frames_of_all_lengths_there_are_cost_nothing_and_harm_nobody() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let pid = receiver.running.pid();
    send_well(&place.file("first", b"warm"), &receiver.url, &[]);
    let before = footprint(pid).2;
    let much = "x".repeat(1 << 20);
    let heads = [
        format!("GET /{much} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("{much} / HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {much}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: x\r\nOrigin: http://{much}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {much}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: x\r\n{much}: x\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X-Y: z\r\n".repeat(1 << 17)),
        format!("GET / HTTP/1.1\r\n{}", "\r".repeat(1 << 20)),
        much.clone(),
    ];
    beside(&receiver, &place, 24 << 20, 8_000_000, || {
        for head in heads.iter().cycle().take(10 * heads.len()) {
            let status = status(&receiver, head.as_bytes());
            // One that is no request already in its first line may be told that instead.
            assert!(matches!(status, Some(431 | 400)), "{status:?}: {}", &head[..30]);
        }
        for length in [1 << 62, 1 << 63, u64::MAX, (1 << 63) + 10] {
            // A text, a part of one, binary; a ping, which has no such length.
            for opcode in [0x81, 0x01, 0x82, 0x89] {
                let mut peer = Peer::dial(&receiver.url);
                peer.tell(&offer("announced", 10));
                peer.hear_type("accept");
                let mut header = vec![opcode, 0xff];
                header.extend(u64::to_be_bytes(length));
                header.extend([0; 4]);
                peer.socket.get_mut().write_all(&header).unwrap();
                while peer.hear().is_some() {}
            }
        }
    });
    let peak = peak(pid);
    println!("before {before} KiB, at peak {peak} KiB");
    assert!(peak < before + 24 * 1024, "{before} KiB, at peak {peak} KiB");
    send_well(&place.file("last", b"still there"), &receiver.url, &[]);
}

/// Opens so many connections, of which each first says nothing, each second half of a request, each third all of it and no
/// more. Gives the statuses that came within `answered`, and the connections, which are open as long as the receiver lets
/// them.
fn crowd(receiver: &Receiver, most: usize, answered: Duration) -> (BTreeMap<u16, usize>, Vec<TcpStream>) {
    const THREADS: usize = 50;
    let address = receiver.address();
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            thread::spawn(move || {
                let (mut statuses, mut open) = (BTreeMap::<u16, usize>::new(), Vec::new());
                while open.len() < most / THREADS {
                    // The queue of the port may be full, and asking again is sooner than the system does it.
                    let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(300));
                    let opened = std::iter::repeat_with(connect).take(200).find_map(Result::ok);
                    let mut stream = opened.expect("there is room in time");
                    let request = upgrade("/", b"");
                    let said = match open.len() % 3 {
                        0 => &[][..],
                        1 => &request[..request.len() / 2],
                        _ => &request[..],
                    };
                    let _ = stream.write_all(said);
                    if said.len() == request.len() && !answered.is_zero() {
                        stream.set_read_timeout(Some(answered)).unwrap();
                        let mut answer = [0; 12];
                        if stream.read_exact(&mut answer).is_ok() {
                            let status = std::str::from_utf8(&answer[9..]).unwrap().parse().unwrap();
                            *statuses.entry(status).or_default() += 1;
                        }
                    }
                    open.push(stream);
                }
                (statuses, open)
            })
        })
        .collect();
    let (mut statuses, mut open) = (BTreeMap::new(), Vec::new());
    for thread in threads {
        let (said, opened) = thread.join().unwrap();
        said.into_iter().for_each(|(status, count)| *statuses.entry(status).or_default() += count);
        open.extend(opened);
    }
    (statuses, open)
}

#[test]
#[ignore = "ten thousand connections, a minute"]
fn ten_thousand_idle_connections_take_little_memory_and_harm_nobody() {
    // The receiver has the same limit.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let room = limit.maximum.unwrap_or(u64::MAX).saturating_sub(1000);
    let most = usize::try_from(room.min(10_000)).unwrap() / 50 * 50;
    if most < 10_000 {
        println!("no more than {most} connections: there are {:?} descriptors", limit.maximum);
    }

    // All that there is room for are served, the others wait to be; who does not end its request in time makes room.
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--handshake-timeout", "2s"]);
    let pid = receiver.running.pid();
    let before = footprint(pid).2;
    beside(&receiver, &place, 96 << 20, 3_000_000, || {
        let (_, open) = crowd(&receiver, most, Duration::ZERO);
        let (descriptors, _, now) = footprint(pid);
        println!("{} connections, {descriptors} descriptors of the receiver, {now} KiB", open.len());
        assert_eq!(open.len(), most);
    });
    let most_memory = peak(pid);
    println!("all served: before {before} KiB, at peak {most_memory} KiB");
    assert!(most_memory < before + 64 * 1024, "{before} KiB, at peak {most_memory} KiB");
    send_well(&place.file("behind", b"there is room"), &receiver.url, &[]);

    // Those of one address are limited: those beyond are told so, if they ask.
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--max-connections-per-address", "500"]);
    let pid = receiver.running.pid();
    let before = footprint(pid).2;
    beside(&receiver, &place, 96 << 20, 3_000_000, || {
        let (statuses, open) = crowd(&receiver, most, Duration::from_secs(3));
        println!("{} connections, {statuses:?}", open.len());
        assert_eq!(open.len(), most);
        let refused = statuses.get(&429).copied().unwrap_or_default();
        assert!(refused > 0 && statuses.keys().all(|status| [101, 429].contains(status)), "{statuses:?}");
    });
    let most_memory = peak(pid);
    println!("500 served: before {before} KiB, at peak {most_memory} KiB");
    assert!(most_memory < before + 24 * 1024, "{before} KiB, at peak {most_memory} KiB");
    send_well(&place.file("behind", b"there is room"), &receiver.url, &[]);
}
