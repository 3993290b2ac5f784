//! Directories over connections that are cut and programs that are killed: run to the end, the tree is there, and nothing
//! that was durable crosses again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use fastrand::Rng;
use rustix::process::{Pid, Signal, kill_process};

use crate::directories::to_the_end;
use crate::forest::{Forest, Grove, assert_same, bytes_of, look};
use crate::proxy::{Plan, Proxy};
use crate::support::{Receiver, Running, wsferry};
use crate::tap::{Ledger, Tap};

/// The most bytes in flight; what a cut may cost.
const WINDOW: u64 = 256 << 10;

fn start(grove: &Grove, url: &str, flags: &[&str]) -> Running {
    let mut command = wsferry();
    command.arg("send").arg(grove.path("t")).arg(url).args(["--json", "--window", "256KiB"]).args(flags);
    Running::start(&mut command)
}

/// What a receipt was given for does not cross again, ever; what was acknowledged does not while its receiver lives. So
/// what crosses again is what was in flight, and `lost`: what died with a receiver that was killed.
fn assert_nothing_twice(ledger: &Ledger, size: u64, lost: u64, ends: u64) {
    println!("{size} bytes, {lost} lost with a receiver: {ledger}");
    assert_eq!((ledger.again_after_receipt, ledger.again_after_ack), (0, 0), "{ledger}");
    assert!(ledger.payload <= size + lost + ends * WINDOW, "{ledger}");
    assert!(ledger.payload >= size, "the ledger has it all: {ledger}");
}

/// Sends a tree over connections of which the first ten are cut.
fn cut(forest: Forest) {
    let grove = Grove::new();
    forest.plant(&grove.path("t"));
    let expected = look(&grove.path("t"));
    let size = bytes_of(&expected);
    let mut rng = Rng::with_seed(forest.seed);
    let receiver = Receiver::start(&grove, &["--once"]);
    // Half of them by what goes to the receiver, the others by what comes back, which is little.
    let (there, back) = (size * 4 / 3 / 8, 60 * forest.files as u64 / 8);
    let points: Vec<(u64, bool)> = (0..10)
        .map(|number| number % 2 == 0)
        .map(|is_there| (rng.u64(500..if is_there { there } else { back }), is_there))
        .collect();
    let proxy = Proxy::start(receiver.address(), move |number| {
        let plan = |direction| Plan {
            cut_after: points.get(number).filter(|&&(_, is_there)| is_there == direction).map(|&(at, _)| at),
            ..Plan::default()
        };
        (plan(true), plan(false))
    });
    let ledger = Arc::default();
    let tap = Tap::start(proxy.address(), &ledger);
    let (events, code) = to_the_end(start(&grove, &tap.url(), &[]));
    tap.end();
    let ledger = ledger.lock().unwrap();
    let reconnecting: Vec<_> = events.iter().filter(|event| event["event"] == "reconnecting").collect();
    assert_eq!(code, 0, "{reconnecting:?}");
    // Each cut was one; what was refused as busy is offered again over another.
    assert!(ledger.connections >= 11, "{reconnecting:?}");
    if ledger.connections > 11 {
        println!("{reconnecting:?}");
    }
    assert_eq!(receiver.running.end().code(), 0);
    assert_same(&expected, &look(&grove.inbox().join("t")));
    assert_eq!(grove.listing(), ["t"]);
    assert_nothing_twice(&ledger, size, 0, 10);
    // And the events say the same, with what got no further than a socket's buffer.
    let sum = |field: &str| -> u64 {
        let finished = events.iter().filter(|event| event["event"] == "finished");
        finished.map(|event| event[field].as_u64().unwrap()).sum()
    };
    assert_eq!(sum("new_bytes"), size);
    let told = sum("new_bytes") + sum("resent_bytes");
    assert!((ledger.payload..=size + 10 * WINDOW).contains(&told), "{told} of {ledger}");
}

/// Sends a tree in runs of which ten end with `kill -9`, of the sender and of the receiver in turns.
fn kill(forest: Forest) {
    let grove = Grove::new();
    forest.plant(&grove.path("t"));
    let expected = look(&grove.path("t"));
    let size = bytes_of(&expected);
    let mut rng = Rng::with_seed(forest.seed);
    let ledger = Arc::<Mutex<Ledger>>::default();
    let mut receiver = Receiver::start(&grove, &[]);
    let mut lost = 0;
    for round in 0..10 {
        let kills_sender = round % 2 == 0;
        // Each run says again what there is, before or while anything new moves.
        let at = rng.u64(500..400 * forest.files as u64 + size * 4 / 3 / 10);
        let (pid, is_killed) = (Arc::new(Mutex::new(None)), Arc::new(AtomicBool::new(false)));
        if !kills_sender {
            *pid.lock().unwrap() = Some(receiver.running.pid());
        }
        let (victim, told) = (pid.clone(), is_killed.clone());
        let pause: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
            let pid = victim.lock().unwrap().take().expect("it runs, and is killed once");
            kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
            told.store(true, Ordering::Relaxed);
        });
        let proxy = Proxy::start(receiver.address(), move |_| {
            (Plan { pause: Some((at, pause.clone())), ..Plan::default() }, Plan::default())
        });
        let tap = Tap::start(proxy.address(), &ledger);
        let sender = {
            // Nobody looks for the process before it is known which it is.
            let mut pid = pid.lock().unwrap();
            let sender = start(&grove, &tap.url(), &["--retry-for", "0s"]);
            pid.get_or_insert(sender.pid());
            sender
        };
        let (_, code) = to_the_end(sender);
        assert!(is_killed.load(Ordering::Relaxed), "round {round} was over before {at} bytes");
        // -1: by a signal.
        assert_eq!(code, if kills_sender { -1 } else { 3 }, "round {round}");
        tap.end();
        if !kills_sender {
            receiver = Receiver::start(&grove, &[]);
            lost += ledger.lock().unwrap().receiver_died();
        }
    }
    let tap = Tap::start(receiver.address(), &ledger);
    let (events, code) = to_the_end(start(&grove, &tap.url(), &[]));
    assert_eq!(code, 0, "{events:?}");
    tap.end();
    assert_same(&expected, &look(&grove.inbox().join("t")));
    assert_nothing_twice(&ledger.lock().unwrap(), size, lost, 10);
    receiver.running.signal("-TERM");
    receiver.running.end();
    assert_eq!(grove.listing(), ["t"]);
}

const SMALL: Forest = Forest { seed: 11, directories: 40, files: 400, largest: 64 << 10 };

#[test]
fn a_tree_that_is_cut_ten_times_arrives_whole_and_nothing_that_was_acknowledged_crosses_again() {
    cut(SMALL);
}

#[test]
fn a_tree_whose_sender_or_receiver_is_killed_ten_times_arrives_whole_and_nothing_durable_crosses_again() {
    kill(SMALL);
}

#[test]
#[ignore = "takes minutes: ten trees of two thousand files"]
fn larger_trees_arrive_whole_over_cuts_and_kills_and_nothing_durable_crosses_again() {
    for seed in 0..10 {
        let forest = Forest { seed, directories: 200, files: 2000, largest: 64 << 10 };
        println!("seed {seed}");
        cut(forest);
        kill(forest);
    }
}
