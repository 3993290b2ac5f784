//! Seeded schedules of cuts, stalls, damage and `kill -9`, of cleaners, neighbours and second senders, against the real
//! program: the identical file, whatever happened, or a typed error on the way to it.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::proxy::{Plan, Proxy};
use crate::support::{Ended, PATIENCE, Place, Receiver, Running, random, wsferry};

/// Connections of one schedule that are broken; later ones are good, so that it ends.
const BROKEN: usize = 8;
/// Runs of the command amid the chaos; what they did not finish, one more has to.
const RUNS: usize = 6;
/// What a neighbour appends.
const MORE: &[u8] = b"more";
/// A change of the file by another, so long before the receipt was seen, is one that the receipt took in.
const SLACK: Duration = Duration::from_millis(500);
/// For both sides; a stall costs each schedule as much.
const STALL: [&str; 2] = ["--stall-timeout", "800ms"];

/// What others do at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    KillSender,
    KillReceiver,
    StopReceiver,
    CleanAll,
    CleanOne,
    Link,
    Rename,
    Truncate,
    Append,
    /// Sends the same content under the same name.
    Twin,
    /// Sends another content under the same name.
    Rival,
}

/// What came of schedules.
#[derive(Debug, Default)]
struct Counts {
    cuts: usize,
    /// Endings of the command that were not 0, and of second senders, by exit code.
    codes: BTreeMap<i32, usize>,
    second_codes: BTreeMap<i32, usize>,
    acts: BTreeMap<Act, usize>,
    resent: u64,
}

/// One schedule.
struct Stage {
    seed: u64,
    place: Place,
    bytes: Vec<u8>,
    others: Vec<u8>,
    /// Where second senders go to.
    url: String,
    started: Instant,
    /// Who is killed: sender and receiver; 0 while there is none.
    pids: Mutex<[u32; 2]>,
    /// When others changed what is under the name. Held while a neighbour does.
    changes: Mutex<Vec<Instant>>,
    /// Second senders of another content that run now.
    rivals: AtomicUsize,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
    counts: Mutex<Counts>,
    /// The receiver that was told to end.
    ending: AtomicU32,
    /// The chaos is over. Held while others act.
    calm: Mutex<bool>,
}

impl Stage {
    fn act(self: &Arc<Self>, act: Act, random: u64) {
        let calm = self.calm.lock().unwrap();
        if *calm {
            return;
        }
        *self.counts.lock().unwrap().acts.entry(act).or_default() += 1;
        let (inbox, hidden) = (self.place.inbox(), self.place.inbox().join(".wsferry"));
        match act {
            Act::KillSender => self.signal("-9", 0),
            Act::KillReceiver => self.signal("-9", 1),
            Act::StopReceiver => self.signal("-TERM", 1),
            Act::CleanAll => drop(fs::remove_dir_all(&hidden)),
            Act::CleanOne => {
                let entries = fs::read_dir(&hidden).into_iter().flatten().flatten();
                let paths: Vec<_> = entries.map(|entry| entry.path()).collect();
                if !paths.is_empty() {
                    let _ = fs::remove_file(&paths[random as usize % paths.len()]);
                }
            }
            Act::Link => {
                let copy = self.place.path(&format!("copy-{random}"));
                let mut command = Command::new("cp");
                let _ = command.arg("-al").arg(inbox).arg(copy).stderr(Stdio::null()).status();
            }
            Act::Rename | Act::Truncate | Act::Append => self.change(act, random),
            Act::Twin | Act::Rival => {
                let stage = self.clone();
                self.rivals.fetch_add(usize::from(act == Act::Rival), Ordering::SeqCst);
                let second = thread::spawn(move || stage.send_too(act == Act::Rival));
                self.threads.lock().unwrap().push(second);
            }
        }
    }

    /// Nobody whose number may be another's by now, nor 0, which is the whole group.
    fn signal(&self, signal: &str, who: usize) {
        let pids = self.pids.lock().unwrap();
        let pid = pids[who];
        if pid == 0 {
            return;
        }
        if who == 1 {
            self.ending.store(pid, Ordering::SeqCst);
        }
        let _ = Command::new("kill").args([signal, &pid.to_string()]).stderr(Stdio::null()).status();
    }

    /// A neighbour changes the file that is there, if one is.
    fn change(&self, act: Act, random: u64) {
        let mut changes = self.changes.lock().unwrap();
        let path = self.place.inbox().join("f");
        if act == Act::Rename {
            if fs::rename(&path, self.place.path(&format!("moved-{random}"))).is_err() {
                return;
            }
        } else if let Ok(mut file) = fs::File::options().append(true).open(&path) {
            if act == Act::Append {
                std::io::Write::write_all(&mut file, MORE).unwrap();
            } else {
                file.set_len(file.metadata().unwrap().len() / 2 * (random % 1000) / 1000).unwrap();
            }
        }
        changes.push(Instant::now());
    }

    fn send_too(&self, another: bool) {
        let file = self.place.path(if another { "other" } else { "f" });
        let mut command = wsferry();
        command.arg("send").arg(file).arg(&self.url).args(["--json", "--name", "f", "--retry-for", "1s"]);
        let ended = Running::start(command.args(STALL)).end();
        if another {
            self.changes.lock().unwrap().push(Instant::now());
            self.rivals.fetch_sub(1, Ordering::SeqCst);
        }
        let code = self.typed(&ended).expect("nobody kills a second sender");
        *self.counts.lock().unwrap().second_codes.entry(code).or_default() += 1;
    }

    /// The exit code, which is one that is documented; `None` if it was killed.
    fn typed(&self, ended: &Ended) -> Option<i32> {
        let seed = self.seed;
        assert!(!ended.errors.contains("panicked"), "seed {seed}: {ended:?}");
        let code = ended.status.code()?;
        assert!([0, 1, 3, 4, 5].contains(&code), "seed {seed}: {ended:?}");
        if code != 0 {
            let lines = ended.errors.lines().filter(|line| line.starts_with("wsferry: ")).count();
            assert_eq!(lines, 1, "seed {seed}: one line tells what happened: {ended:?}");
        }
        Some(code)
    }

    /// One run of the command; `None` if it was killed. The receiver is started again whenever it has gone.
    fn send(&self, url: &str, receiver: &mut Receiver, flags: &[&str]) -> Option<Ended> {
        let seed = self.seed;
        let mut command = wsferry();
        command.arg("send").arg(self.place.path("f")).arg(url).args(["--json", "--retry-for", "8s"]);
        let sender = Running::start(command.args(STALL));
        self.pids.lock().unwrap()[0] = sender.pid();
        let (mut resent, mut receipt) = (0, None);
        while let Some(event) = sender.try_event() {
            assert!(self.started.elapsed() < 2 * PATIENCE, "seed {seed}: it goes on for ever: {event}");
            resent = event["resent_bytes"].as_u64().unwrap_or(resent);
            receipt = event["blake3"].as_str().map(|digest| (digest.to_owned(), Instant::now())).or(receipt);
            self.counts.lock().unwrap().cuts += usize::from(event["event"] == "reconnecting");
            self.restart(receiver, flags);
        }
        self.counts.lock().unwrap().resent += resent;
        self.pids.lock().unwrap()[0] = 0;
        let ended = sender.end();
        self.restart(receiver, flags);
        let code = self.typed(&ended);
        if code == Some(0) {
            let (digest, seen) = receipt.expect("it is told with the file");
            assert_eq!(digest, blake3::hash(&self.bytes).to_string(), "seed {seed}");
            self.check(seen);
        } else if let Some(code) = code {
            *self.counts.lock().unwrap().codes.entry(code).or_default() += 1;
        }
        code.map(|_| ended)
    }

    fn restart(&self, receiver: &mut Receiver, flags: &[&str]) {
        let mut pids = self.pids.lock().unwrap();
        if receiver.running.has_ended() {
            pids[1] = 0;
            drop(pids);
            let address = receiver.address().to_string();
            let ended = std::mem::replace(receiver, Receiver::start_on(&self.place, &address, flags)).running;
            self.pids.lock().unwrap()[1] = receiver.running.pid();
            let ended = ended.end();
            assert!(!ended.errors.contains("panicked"), "seed {}: {ended:?}", self.seed);
            assert!([None, Some(3)].contains(&ended.status.code()), "seed {}: {ended:?}", self.seed);
        }
    }

    /// A receipt is for the file that is there, unless another has changed it since.
    fn check(&self, seen: Instant) {
        let seed = self.seed;
        let changes = self.changes.lock().unwrap();
        // In this order: a second sender that ends meanwhile has told of its change.
        let changing = self.rivals.load(Ordering::SeqCst) > 0;
        let there = fs::read(self.place.inbox().join("f")).ok();
        if there.as_ref() == Some(&self.bytes) {
            return;
        }
        let changed = changing || changes.last().is_some_and(|&last| last + SLACK > seen);
        assert!(changed, "seed {seed}: a wrong file was called right: {:?}", there.map(|there| there.len()));
        if let Some(mut there) = there {
            while there.ends_with(MORE) {
                there.truncate(there.len() - MORE.len());
            }
            let whole = self.bytes.starts_with(&there) || self.others.starts_with(&there);
            assert!(whole, "seed {seed}: two files were mixed: {} bytes", there.len());
        }
    }
}

/// One direction's misfortune within so many bytes.
fn plan(rng: &mut Rng, wire: u64, stage: &Arc<Stage>) -> Plan {
    let at = rng.u64(0..wire);
    match rng.u8(0..20) {
        0..3 => Plan { cut_after: Some(at), ..Plan::default() },
        3 => Plan { half_close_after: Some(at), ..Plan::default() },
        4 => Plan { stall_after: Some(at), ..Plan::default() },
        5 | 6 => Plan { flip_at: Some(at), cut_after: Some(rng.u64(0..2 * wire)), ..Plan::default() },
        7 => Plan { piece: Some((300, rng.usize(1000..9000))), cut_after: Some(at), ..Plan::default() },
        8 => Plan { rate: Some(100_000_000), cut_after: Some(at), ..Plan::default() },
        9 => {
            // Most are short: a schedule is to take a second or two.
            let life = Duration::from_millis(200 + (rng.f64().powi(4) * 1800.0) as u64);
            Plan { rate: Some(rng.u64(2_000_000..20_000_000)), life: Some(life), ..Plan::default() }
        }
        _ => {
            let (act, random, stage) = (act(rng), rng.u64(0..1 << 40), stage.clone());
            let pause: Arc<dyn Fn() + Send + Sync> = Arc::new(move || stage.act(act, random));
            // A second sender sees the name held for a while.
            let rate = matches!(act, Act::Twin | Act::Rival).then_some(20_000_000);
            Plan { pause: Some((at, pause)), rate, cut_after: Some(rng.u64(at..2 * wire)), ..Plan::default() }
        }
    }
}

fn act(rng: &mut Rng) -> Act {
    match rng.u8(0..22) {
        0..4 => Act::KillSender,
        4..8 => Act::KillReceiver,
        8 => Act::StopReceiver,
        9..11 => Act::CleanAll,
        11..13 => Act::CleanOne,
        13..15 => Act::Link,
        15 => Act::Rename,
        16 => Act::Truncate,
        17 => Act::Append,
        18..20 => Act::Twin,
        _ => Act::Rival,
    }
}

fn run(seed: u64) -> Counts {
    let mut rng = Rng::with_seed(seed);
    let size = if rng.u8(0..50) == 0 { 64 << 20 } else { rng.usize(8 << 20..16 << 20) };
    let (bytes, others) = (random(size, seed), random(size - rng.usize(0..2) * 1000, !seed));
    let place = Place::new();
    place.file("f", &bytes);
    place.file("other", &others);
    let overwrite = rng.bool();
    let flags = if overwrite { &["--stall-timeout", "800ms", "--overwrite"][..] } else { &STALL };
    match rng.u8(0..6) {
        0 => drop(place.file("inbox/f", &bytes)),
        // It seems to be the same until it is compared, if the size is.
        1 if overwrite => {
            let there = fs::File::options().write(true).open(place.file("inbox/f", &others)).unwrap();
            there.set_modified(fs::metadata(place.path("f")).unwrap().modified().unwrap()).unwrap();
        }
        _ => {}
    }
    let mut receiver = Receiver::start(&place, flags);
    let (address, url) = (receiver.address(), receiver.url.clone());
    let stage = Arc::new(Stage {
        seed,
        place,
        bytes,
        others,
        url,
        started: Instant::now(),
        pids: Mutex::new([0, receiver.running.pid()]),
        changes: Mutex::default(),
        rivals: AtomicUsize::new(0),
        threads: Mutex::default(),
        counts: Mutex::default(),
        ending: AtomicU32::new(0),
        calm: Mutex::new(false),
    });
    let narrow = rng.u8(0..6) == 0;
    let plans: Vec<(Plan, Plan)> = (0..rng.usize(2..=BROKEN))
        .map(|_| match rng.u8(0..4) {
            // Little goes back: a handshake and acknowledgements.
            0 => (Plan::default(), plan(&mut rng, 1000, &stage)),
            _ if narrow => {
                (Plan { cut_after: Some(rng.u64(100_000..300_000)), ..Plan::default() }, Plan::default())
            }
            _ => (plan(&mut rng, size as u64 / 3 * 4, &stage), Plan::default()),
        })
        .collect();
    let watched = stage.clone();
    let proxy = Proxy::start(address, move |number| {
        let plan = plans.get(number).filter(|_| !*watched.calm.lock().unwrap());
        plan.cloned().unwrap_or_default()
    });
    // What happens at a time, wherever the transfer is.
    for _ in 0..rng.usize(0..3) {
        let (act, random, after) = (act(&mut rng), rng.u64(0..1 << 40), rng.u64(0..600));
        let (stage, after) = (stage.clone(), Duration::from_millis(after));
        let watched = stage.clone();
        let other = thread::spawn(move || {
            thread::sleep(after);
            watched.act(act, random);
        });
        stage.threads.lock().unwrap().push(other);
    }
    for _ in 0..RUNS {
        if stage.send(&proxy.url(), &mut receiver, flags).is_some_and(|ended| ended.status.success()) {
            break;
        }
        let listing = stage.place.listing();
        assert!(listing.iter().all(|name| name == "f" || name == ".wsferry"), "seed {seed}: {listing:?}");
    }
    finish(&stage, &mut receiver, &proxy, flags);
    std::mem::take(&mut *stage.counts.lock().unwrap())
}

/// When it is calm, the same command finishes.
fn finish(stage: &Arc<Stage>, receiver: &mut Receiver, proxy: &Proxy, flags: &[&str]) {
    let seed = stage.seed;
    *stage.calm.lock().unwrap() = true;
    loop {
        let Some(other) = stage.threads.lock().unwrap().pop() else { break };
        other.join().unwrap_or_else(|_| panic!("seed {seed}: a second sender"));
    }
    let waiting = Instant::now();
    while stage.ending.load(Ordering::SeqCst) == receiver.running.pid() && !receiver.running.has_ended() {
        assert!(waiting.elapsed() < PATIENCE, "seed {seed}: the receiver does not end");
        thread::sleep(Duration::from_millis(2));
    }
    stage.restart(receiver, flags);
    let path = stage.place.inbox().join("f");
    let ours = || fs::read(&path).is_ok_and(|there| there == stage.bytes);
    let kept = path.exists() && !ours() && !flags.contains(&"--overwrite");
    let before = fs::read(&path).ok();
    let mut ended = stage.send(&proxy.url(), receiver, flags).expect("nobody kills it");
    if kept {
        // Another's file has the name, and is not replaced.
        ended.assert_error(4, &["f"]);
        assert!(fs::read(&path).ok() == before, "seed {seed}: a file was replaced");
        fs::remove_file(&path).unwrap();
        ended = stage.send(&proxy.url(), receiver, flags).expect("nobody kills it");
    }
    assert_eq!(ended.code(), 0, "seed {seed}: {ended:?}");
    assert!(ours(), "seed {seed}: a wrong file was called right");
    let left = || {
        let shelf = fs::read_dir(stage.place.inbox().join(".wsferry"));
        shelf.into_iter().flatten().collect::<Vec<_>>()
    };
    assert_eq!(stage.place.listing(), ["f"], "seed {seed}: litter: {:?}", left());
}

/// Two at a time; all that fail are told.
fn schedules(seeds: impl Iterator<Item = u64> + Send) {
    let (seeds, outcomes) = (Mutex::new(seeds), Mutex::new((Vec::new(), Vec::new())));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(seed) = seeds.lock().unwrap().next() else { break };
                    let outcome = thread::spawn(move || run(seed)).join();
                    let mut outcomes = outcomes.lock().unwrap();
                    match outcome {
                        Ok(counts) => outcomes.0.push(counts),
                        Err(_) => outcomes.1.push(seed),
                    }
                }
            });
        }
    });
    let (all, failed) = outcomes.into_inner().unwrap();
    let mut sum = Counts::default();
    for counts in &all {
        sum.cuts += counts.cuts;
        counts.codes.iter().for_each(|(code, n)| *sum.codes.entry(*code).or_default() += n);
        counts.second_codes.iter().for_each(|(code, n)| *sum.second_codes.entry(*code).or_default() += n);
        counts.acts.iter().for_each(|(act, n)| *sum.acts.entry(*act).or_default() += n);
    }
    let mut resent: Vec<u64> = all.iter().map(|counts| counts.resent).collect();
    resent.sort_unstable();
    println!(
        "{} files identical, {} cuts, typed errors by exit code {:?}, second senders by exit code {:?}, {:?}; bytes sent \
         twice in a schedule: median {:?}, max {:?}",
        all.len(),
        sum.cuts,
        sum.codes,
        sum.second_codes,
        sum.acts,
        resent.get(resent.len() / 2),
        resent.last(),
    );
    assert!(failed.is_empty(), "failed: WSFERRY_CHAOS_SEED = {failed:?}");
}

#[test]
fn a_few_schedules_of_chaos_end_in_the_identical_file() {
    schedules(1..=6);
}

/// `WSFERRY_CHAOS_SEED=N` replays one schedule, or more: `N..M`.
#[test]
#[ignore = "takes minutes"]
fn a_thousand_schedules_of_chaos_end_in_the_identical_file() {
    let Ok(seeds) = std::env::var("WSFERRY_CHAOS_SEED") else { return schedules(1000..2000) };
    let (first, end) = seeds.split_once("..").unwrap_or((&seeds, ""));
    let first: u64 = first.parse().unwrap();
    schedules(first..end.parse().unwrap_or(first + 1));
}
