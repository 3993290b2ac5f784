//! What a person sees: a terminal is replayed from what was written to it, and read.

use std::fs::File;
use std::io::Read;
use std::num::NonZero;
use std::sync::mpsc::{Receiver as Bytes, channel};
use std::thread;
use std::time::Instant;

use rustix::termios::{Winsize, tcsetwinsize};

use crate::proxy::{Plan, Proxy};
use crate::support::{PATIENCE, Place, Receiver, random, wsferry};
use crate::terminal::{Guard, terminal};

const ROWS: u16 = 12;

fn cells(count: u16) -> NonZero<u16> {
    NonZero::new(count).unwrap()
}

/// A terminal that is looked at.
struct Seen {
    shows: File,
    bytes: Bytes<Vec<u8>>,
    parser: vt100::Parser,
}

impl Seen {
    /// The terminal, and the end that a program writes to.
    fn new(columns: u16) -> (Self, File) {
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
    let _sender = Guard::on(written, &mut command);

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
