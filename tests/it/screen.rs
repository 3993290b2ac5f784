//! What a person sees: a terminal is replayed from what was written to it, and read.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::num::NonZero;
use std::process::Stdio;
use std::sync::mpsc::{Receiver as Bytes, channel};
use std::thread;
use std::time::Instant;

use rustix::termios::{Winsize, tcsetwinsize};

use crate::hostile::{frame, offer};
use crate::proxy::{Plan, Proxy};
use crate::support::{PATIENCE, Peer, Place, Process, Receiver, Running, random, wsferry};
use crate::terminal::{start_on, terminal};

const ROWS: u16 = 12;

fn cells(count: u16) -> NonZero<u16> {
    NonZero::new(count).unwrap()
}

/// A terminal that is looked at.
pub struct Seen {
    shows: File,
    pub bytes: Bytes<Vec<u8>>,
    pub parser: vt100::Parser,
}

impl Seen {
    /// The terminal, and the end that a program writes to.
    pub fn new(columns: u16) -> (Self, File) {
        let (shows, written) = terminal();
        let (told, bytes) = channel();
        let mut reads = shows.try_clone().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = reads.read(&mut buffer) {
                if told.send(buffer[..len].to_vec()).is_err() {
                    return;
                }
            }
        });
        let mut seen = Self { shows, bytes, parser: vt100::Parser::new(cells(ROWS), cells(columns), 0) };
        seen.resize(columns);
        (seen, written)
    }

    fn resize(&mut self, columns: u16) {
        let size = Winsize { ws_row: ROWS, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.shows, size).unwrap();
        self.parser.screen_mut().set_size(cells(ROWS), cells(columns));
    }

    fn rows(&self) -> Vec<String> {
        let columns = self.parser.screen().size().1;
        self.parser.screen().rows(0, columns.get()).map(|row| row.trim_end().to_owned()).collect()
    }

    /// Reads until the rows are as they should be.
    fn wait_until(&mut self, is_so: impl Fn(&[String]) -> bool) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let rows = self.rows();
            if is_so(&rows) {
                return rows;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let bytes = self.bytes.recv_timeout(left).unwrap_or_else(|_| panic!("it is not so: {rows:#?}"));
            self.parser.process(&bytes);
        }
    }

    /// Reads until one row holds all of these words; of no moment before it are there two bars, or half of one.
    fn wait_for(&mut self, words: &[&str]) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let rows = self.rows();
            let bars: Vec<&String> = rows.iter().filter(|row| row.contains('%')).collect();
            assert!(bars.len() <= 1, "debris: {rows:#?}");
            if let Some(row) = rows.iter().find(|row| words.iter().all(|word| row.contains(word))) {
                let below = rows.iter().skip_while(|other| *other != row).skip(1);
                assert!(below.clone().all(String::is_empty), "it wraps: {rows:#?}");
                return row.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let bytes = self.bytes.recv_timeout(left).unwrap_or_else(|_| panic!("no {words:?}: {rows:#?}"));
            self.parser.process(&bytes);
        }
    }
}

/// Listens where another program did a moment ago.
fn listen_again(address: SocketAddr) -> TcpListener {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match TcpListener::bind(address) {
            Ok(listener) => return listener,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}

/// A transfer that is slow, then stands still, then is cut for good.
fn slow_stalled_and_cut(columns: u16, name: &str, resized: u16) {
    let place = Place::new();
    let mut receiver = Receiver::start(&place, &[]);
    let plan = Plan { rate: Some(2_000_000), stall_after: Some(4_000_000), ..Plan::default() };
    let proxy = Proxy::start(receiver.address(), move |_| (plan.clone(), Plan::default()));
    let (mut seen, written) = Seen::new(columns);
    let file = place.file(name, &random(8_000_000, 1));
    let mut command = wsferry();
    command.arg("send").arg(&file).arg(proxy.url()).args(["--window", "256KiB"]);
    let _sender = start_on(written, &mut command);

    let moving = if columns < 30 { &["%"][..] } else { &["%", " MB", "/s"][..] };
    let row = seen.wait_for(moving);
    assert!(columns < 60 || (row.contains("ETA ") && row.contains("/8.00 MB")), "{row}");
    assert!(columns < 40 || row.starts_with(&name[..name.find('.').unwrap()]), "{row}");
    seen.wait_for(&["%", "stalled 3 s"]);
    let row = seen.wait_for(&["%", "stalled 4 s"]);
    assert!(!row.contains("/s "), "{row}");
    assert!(columns < 40 || row.contains("-- "), "{row}");

    receiver.running.kill();
    let row = seen.wait_for(&["%", "again in "]);
    assert!(columns < 40 || row.contains("cut: "), "{row}");
    seen.wait_for(&["%", "again in 2 s"]);
    seen.wait_for(&["%", "again in 1 s"]);
    seen.resize(resized);
    seen.wait_for(&["%", "again in 3 s"]);
}

#[test]
fn a_screen_of_any_width_tells_a_transfer_a_stall_and_a_cut_in_one_row() {
    let cases = [
        (200, "plain.tar", 80),
        (80, "備份的檔案.tar", 40),
        (40, "a👨‍👩‍👧.tar", 20),
        (20, "long-name-of-a-file.tar", 60),
    ];
    let shown = cases
        .map(|(columns, name, resized)| thread::spawn(move || slow_stalled_and_cut(columns, name, resized)));
    shown.into_iter().for_each(|shown| shown.join().unwrap());
}

#[test]
fn more_transfers_than_rows_end_in_a_count_and_leave_no_debris() {
    let place = Place::new();
    let (mut seen, written) = Seen::new(80);
    let mut command = wsferry();
    command.arg("receive").arg(place.inbox()).args(["--listen", "127.0.0.1:0"]);
    let _receiver = start_on(written, &mut command);
    let word = |rows: &[String]| {
        let mut words = rows.iter().flat_map(|row| row.split_whitespace());
        words.find(|word| word.starts_with("ws://")).map(|word| word.trim_end_matches(',').to_owned())
    };
    let rows = seen.wait_until(|rows| word(rows).is_some());
    let url = word(&rows).unwrap();
    let senders: Vec<Peer> = (0..15)
        .map(|number| {
            let mut peer = Peer::dial(&url);
            peer.tell(&offer(&format!("f{number}"), 3000));
            peer.hear_type("accept");
            peer.say(frame(0, 0, &random(300, number)));
            peer
        })
        .collect();
    let bars = |rows: &[String]| rows.iter().filter(|row| row.contains(" 10% ")).count();
    let last = |rows: &[String]| rows.iter().rfind(|row| !row.is_empty()).cloned().unwrap_or_default();
    // Eleven rows and one for the cursor.
    seen.wait_until(|rows| bars(rows) == 10 && last(rows).starts_with("+5 more"));
    drop(senders);
    // For a moment the bars are off the screen while a line is written, so that both are waited for together.
    seen.wait_until(|rows| {
        rows.iter().all(|row| !row.contains('%') && !row.starts_with('+'))
            && rows.iter().any(|row| row.contains("was lost") || row.contains("closed"))
    });
}

#[test]
fn input_without_a_size_has_no_percent_and_no_end_and_is_told_once_it_is_there() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let (mut seen, written) = Seen::new(80);
    let mut command = wsferry();
    command.args(["send", "-", "--name", "x.tar", &receiver.url]).stdin(Stdio::piped());
    let mut sender = start_on(written, &mut command);
    let mut input = sender.input();
    input.write_all(&random(2_000_000, 2)).unwrap();
    let rows = seen.wait_until(|rows| rows.iter().any(|row| row.contains("2.00 MB")));
    let row = rows.iter().find(|row| row.contains("2.00 MB")).unwrap();
    assert!(row.starts_with("x.tar 2.00 MB ") && !row.contains('%') && !row.contains("ETA"), "{row}");
    drop(input);
    let rows = seen.wait_until(|rows| rows.iter().any(|row| row.starts_with("sent x.tar: 2.00 MB in ")));
    assert!(rows.iter().filter(|row| !row.is_empty()).count() == 1, "{rows:#?}");
}

#[test]
fn a_tree_is_one_row_with_files_bytes_and_the_name_that_is_on_its_way() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let plan = Plan { rate: Some(1_000_000), stall_after: Some(1_500_000), ..Plan::default() };
    let proxy = Proxy::start(receiver.address(), move |_| (plan.clone(), Plan::default()));
    for number in 0..4 {
        place.file(&format!("t/d/f{number}"), &random(1_000_000, number));
    }
    let (mut seen, written) = Seen::new(80);
    let mut command = wsferry();
    command.arg("send").arg(place.path("t")).arg(proxy.url()).args(["--window", "256KiB"]);
    let _sender = start_on(written, &mut command);
    let row = seen.wait_for(&["/4 files", "t/d/f", "%", "/4.00 MB"]);
    assert!(row.contains("ETA") || row.contains("stalled"), "{row}");
    let row = seen.wait_for(&["/4 files", "stalled 3 s"]);
    assert!(row.contains("1/4 files") || row.contains("0/4 files"), "{row}");
}

/// `wsferry receive` on a terminal; the address that it tells there.
fn receiver_on(seen: &mut Seen, written: File, place: &Place) -> (Process, String) {
    let mut command = wsferry();
    command.arg("receive").arg(place.inbox()).args(["--listen", "127.0.0.1:0"]);
    let receiver = start_on(written, &mut command);
    let rows = seen.wait_until(|rows| rows[0].starts_with("listening on ws://"));
    let url = rows[0].split(['/', ',']).nth(2).unwrap();
    (receiver, url.to_owned())
}

#[test]
fn a_directory_that_comes_has_one_bar_with_what_moves_and_its_cut_is_told_once() {
    let place = Place::new();
    let (mut seen, written) = Seen::new(200);
    let (_receiver, address) = receiver_on(&mut seen, written, &place);
    let plan = Plan { rate: Some(4_000_000), stall_after: Some(6_000_000), ..Plan::default() };
    let proxy = Proxy::start(address.parse().unwrap(), move |_| (plan.clone(), Plan::default()));
    for (name, size) in [("a-large-one", 8_000_000), ("b", 100_000), ("c", 100_000)] {
        place.file(&format!("t/{name}"), &random(size, 7));
    }
    let mut command = wsferry();
    let mut sender =
        Running::start(command.arg("send").arg(place.path("t")).args([&proxy.url(), "--window", "256KiB"]));
    let moving = |row: &String| row.starts_with("0 files t/a-large-one ") && row.contains(" MB/s");
    let rows = seen.wait_until(|rows| rows.iter().any(moving));
    assert_eq!(rows.iter().filter(|row| row.contains("t/")).count(), 1, "{rows:#?}");
    sender.kill();
    let is_told = |row: &String| row.starts_with("wsferry: the connection to ");
    let rows = seen.wait_until(|rows| rows.iter().any(is_told));
    let told: Vec<&String> = rows.iter().filter(|row| row.starts_with("wsferry: ")).collect();
    let [told] = told[..] else { panic!("{rows:#?}") };
    assert!(told.ends_with("; the sender of t/a-large-one and 2 more files can resume"), "{told}");
}

#[test]
fn what_was_there_is_compared_in_sight() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let bytes = random(20_000_000, 3);
    let file = place.file("f", &bytes);
    let fast = |url: &str| Running::start(wsferry().arg("send").arg(&file).args([url, "--json"]));
    let plan = Plan { stall_after: Some(20_000_000), ..Plan::default() };
    let proxy = Proxy::start(receiver.address(), move |_| (plan.clone(), Plan::default()));
    let mut first = fast(&proxy.url());
    first.wait_for(|event| event["acknowledged"].as_u64() > Some(13_000_000));
    first.kill();
    receiver.running.wait_for(|event| event["event"] == "failed");
    // Each byte of a block is read again, over a path that lets the questions pass slowly.
    let plan = Plan { rate: Some(20_000), ..Plan::default() };
    let proxy = Proxy::start(receiver.address(), move |_| (plan.clone(), plan.clone()));
    let (mut seen, written) = Seen::new(100);
    let mut command = wsferry();
    command.arg("send").arg(&file).arg(proxy.url());
    let _sender = start_on(written, &mut command);
    seen.wait_for(&["f ", "verifying ", "%"]);
}

#[test]
fn colours_are_for_terminals_unless_they_are_asked_for_or_not_wanted() {
    use vt100::Color::{Default, Idx};

    let first = |seen: &mut Seen| {
        seen.wait_until(|rows| rows[0].starts_with("wsferry: cannot connect to 127.0.0.1:1"));
        seen.parser.screen().cell(0, 0).unwrap().fgcolor()
    };
    for (flags, name, value, colour) in [
        (&[][..], "LANG", "C", Idx(1)),
        (&[], "NO_COLOR", "1", Default),
        (&[], "CLICOLOR", "0", Default),
        (&["--color", "never"], "LANG", "C", Default),
        (&["--color", "always"], "NO_COLOR", "1", Idx(1)),
    ] {
        let (mut seen, written) = Seen::new(200);
        let mut command = wsferry();
        command.args(["send", "Cargo.toml", "ws://127.0.0.1:1"]).args(flags);
        command.env_remove("NO_COLOR").env_remove("CLICOLOR").env_remove("CLICOLOR_FORCE").env(name, value);
        let _sender = start_on(written, &mut command);
        assert_eq!(first(&mut seen), colour, "{flags:?} {name}={value}");
    }
    let mut command = wsferry();
    let plain = command.args(["send", "Cargo.toml", "ws://127.0.0.1:1"]).env_remove("CLICOLOR_FORCE");
    assert!(Running::start(plain).end().errors.starts_with("wsferry: cannot"));
    let forced = Running::start(command.env("CLICOLOR_FORCE", "1").env_remove("NO_COLOR")).end();
    assert!(forced.errors.starts_with("\x1b["), "{forced:?}");
}

#[test]
fn without_a_terminal_a_cut_is_one_line_and_so_is_its_end_however_often_it_is_tried() {
    let place = Place::new();
    let mut receiver = Receiver::start(&place, &[]);
    let address = receiver.address();
    let proxy =
        Proxy::start(address, |_| (Plan { rate: Some(20_000_000), ..Plan::default() }, Plan::default()));
    let file = place.file("f", &random(30_000_000, 4));
    let sender = Running::start(wsferry().arg("send").arg(&file).arg(proxy.url()));
    receiver.running.wait_for(|event| event["event"] == "progress");
    receiver.running.kill();
    // Somebody else is asked three times.
    let listener = listen_again(address);
    for _ in 0..3 {
        drop(listener.accept().unwrap());
    }
    drop(listener);
    let _receiver = Receiver::start_on(&place, &address.to_string(), &[]);
    let ended = sender.end();
    assert_eq!(ended.code(), 0, "{ended:?}");
    // Behind each five seconds a line says how far it is.
    let lines: Vec<&str> = ended.errors.lines().filter(|line| !line.contains(" left")).collect();
    let [cut, connected, resuming] = lines[..] else { panic!("{lines:#?}") };
    assert!(cut.starts_with("cut: ") && cut.ends_with("; trying again"), "{cut}");
    assert!(connected.starts_with("connected again after ") && connected.ends_with(" try"), "{connected}");
    assert!(resuming.starts_with("f: resuming at "), "{resuming}");
}

#[test]
fn the_last_progress_before_a_standstill_is_told_and_both_rates_are() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let plan = Plan { stall_after: Some(5_000_000), ..Plan::default() };
    let proxy = Proxy::start(receiver.address(), move |_| (plan.clone(), Plan::default()));
    let file = place.file("f", &random(30_000_000, 5));
    let sender = Running::start(wsferry().arg("send").arg(&file).args([
        &proxy.url(),
        "--json",
        "--chunk-size",
        "48KiB",
    ]));
    // Base64 of five million characters, less what is on its way in them.
    let last = sender.wait_for(|event| event["acknowledged"].as_u64() > Some(3_600_000));
    assert_eq!(last["event"], "progress");
    let (current, average) = (last["bytes_per_second"].as_f64(), last["average_bytes_per_second"].as_f64());
    assert!(current > Some(0.0) && average > Some(0.0), "{last}");
}
