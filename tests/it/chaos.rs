//! Seeded schedules of cuts, stalls, damage and `kill -9`, against the real program: the identical file, whatever
//! happened, or a typed error on the way to it.

use std::fmt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use fastrand::Rng;

use crate::proxy::{Plan, Proxy};
use crate::support::{Place, Receiver, Running, random, wsferry};

/// Connections of one schedule that are broken; later ones are good, so that it ends.
const BROKEN: usize = 5;
/// Runs of the command until the file has to be there.
const RUNS: usize = 12;

/// What one schedule came to.
#[derive(Debug)]
struct Outcome {
    cuts: usize,
    kills: usize,
    typed_errors: usize,
    resent: u64,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cuts, kills, typed_errors, resent } = self;
        write!(
            f,
            "{cuts} connections cut, {kills} kills, {typed_errors} typed errors, {resent} bytes re-sent"
        )
    }
}

/// Who is killed: their process ids, sender and receiver.
type Pids = Arc<Mutex<[u32; 2]>>;

/// One direction's misfortune within so many bytes.
fn plan(rng: &mut Rng, wire: u64, pids: &Pids) -> Plan {
    let at = rng.u64(0..wire);
    match rng.u8(0..12) {
        0..3 => Plan { cut_after: Some(at), ..Plan::default() },
        3 => Plan { half_close_after: Some(at), ..Plan::default() },
        4 => Plan { stall_after: Some(at), ..Plan::default() },
        5..7 => Plan { flip_at: Some(at), cut_after: Some(rng.u64(0..2 * wire)), ..Plan::default() },
        7 => Plan { piece: Some((300, rng.usize(1000..9000))), cut_after: Some(at), ..Plan::default() },
        8 => Plan { rate: Some(100_000_000), cut_after: Some(at), ..Plan::default() },
        _ => {
            let (pids, who) = (pids.clone(), rng.usize(0..2));
            let kill = move || {
                let pid = pids.lock().unwrap()[who].to_string();
                let _ = Command::new("kill").args(["-9", &pid]).stderr(Stdio::null()).status();
            };
            Plan { pause: Some((at, Arc::new(kill))), ..Plan::default() }
        }
    }
}

fn run(seed: u64, size: usize) -> Outcome {
    println!("seed {seed}");
    let mut rng = Rng::with_seed(seed);
    let place = Place::new();
    let bytes = random(size, seed);
    let file = place.file("f", &bytes);
    let flags = ["--stall-timeout", "1500ms"];
    let mut receiver = Receiver::start(&place, &flags);
    let address = receiver.address();
    let pids = Pids::new(Mutex::new([0, receiver.running.pid()]));
    let plans: Vec<(Plan, Plan)> = (0..rng.usize(2..=BROKEN))
        .map(|_| match rng.u8(0..4) {
            // Little goes back: a handshake and acknowledgements.
            0 => (Plan::default(), plan(&mut rng, 1000, &pids)),
            _ => (plan(&mut rng, size as u64 / 3 * 4, &pids), Plan::default()),
        })
        .collect();
    let proxy = Proxy::start(address, move |number| plans.get(number).cloned().unwrap_or_default());
    let mut outcome = Outcome { cuts: 0, kills: 0, typed_errors: 0, resent: 0 };
    for _ in 0..RUNS {
        let mut command = wsferry();
        let command = command.arg("send").arg(&file).arg(proxy.url());
        let sender = Running::start(command.args(["--json", "--retry-for", "20s"]).args(flags));
        pids.lock().unwrap()[0] = sender.pid();
        let mut resent = 0;
        while let Some(event) = sender.try_event() {
            resent = event["resent_bytes"].as_u64().unwrap_or(resent);
            if event["event"] == "reconnecting" {
                outcome.cuts += 1;
            }
            if receiver.running.has_ended() {
                outcome.kills += 1;
                receiver = Receiver::start_on(&place, &address.to_string(), &flags);
                pids.lock().unwrap()[1] = receiver.running.pid();
            }
        }
        outcome.resent += resent;
        let ended = sender.end();
        assert!(!ended.errors.contains("panicked"), "seed {seed}: {ended:?}");
        match ended.status.code() {
            Some(0) => {
                assert!(place.received("f") == bytes, "seed {seed}: a wrong file was called right");
                assert_eq!(place.listing(), ["f"], "seed {seed}: litter");
                return outcome;
            }
            None => outcome.kills += 1,
            Some(code) => {
                assert!([1, 3, 4, 5].contains(&code), "seed {seed}: {ended:?}");
                assert!(ended.errors.starts_with("wsferry: "), "seed {seed}: {ended:?}");
                outcome.typed_errors += 1;
            }
        }
        if receiver.running.has_ended() {
            outcome.kills += 1;
            receiver = Receiver::start_on(&place, &address.to_string(), &flags);
            pids.lock().unwrap()[1] = receiver.running.pid();
        }
    }
    panic!("seed {seed}: not there after {RUNS} runs: {outcome}");
}

fn schedules(seeds: impl Iterator<Item = u64>, size: usize) {
    let outcomes: Vec<Outcome> = seeds
        .map(|seed| {
            let outcome = run(seed, size);
            println!("  {outcome}");
            outcome
        })
        .collect();
    let mut per_cut: Vec<u64> = outcomes
        .iter()
        .map(|outcome| outcome.resent / (outcome.cuts + outcome.kills).max(1) as u64)
        .collect();
    per_cut.sort_unstable();
    println!(
        "{} schedules, {} files identical, {} cuts, {} kills, {} typed errors; bytes re-sent per cut: median {}, max {}",
        outcomes.len(),
        outcomes.len(),
        outcomes.iter().map(|outcome| outcome.cuts).sum::<usize>(),
        outcomes.iter().map(|outcome| outcome.kills).sum::<usize>(),
        outcomes.iter().map(|outcome| outcome.typed_errors).sum::<usize>(),
        per_cut[per_cut.len() / 2],
        per_cut[per_cut.len() - 1],
    );
    assert!(outcomes.iter().any(|outcome| outcome.cuts > 0), "nothing was cut");
}

#[test]
fn a_few_schedules_of_chaos_end_in_the_identical_file() {
    schedules(1..=6, 16 << 20);
}

/// `WSFERRY_CHAOS_SEED=N` replays one schedule.
#[test]
#[ignore = "takes minutes"]
fn two_hundred_schedules_of_chaos_end_in_the_identical_file() {
    match std::env::var("WSFERRY_CHAOS_SEED") {
        Ok(seed) => schedules(std::iter::once(seed.parse().unwrap()), 64 << 20),
        Err(_) => schedules(1000..1200, 64 << 20),
    }
}
