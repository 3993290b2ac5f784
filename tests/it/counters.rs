//! A hundred transfers of all kinds: what a monitor reads at the end is what the events said.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::hostile::offer_as;
use crate::http::get;
use crate::listen_http::samples;
use crate::proxy::{Plan, Proxy};
use crate::support::{Ended, Peer, Place, Receiver, Running, random, send, wsferry};

const SMALL: usize = 40;
const AGAIN: usize = 12;
const TREE: usize = 30;
const REFUSED: usize = 8;
const DAMAGED: usize = 5;
const REPAIRED: usize = 5;
const RESUMED: usize = 5;
const GONE: usize = 3;

/// What the receiver's metrics are at the moment.
fn metrics(receiver: &Receiver) -> BTreeMap<String, f64> {
    samples(&get(receiver.address(), "/metrics").body)
}

/// The sum of a field over what senders finished.
fn sum(ended: &[Ended], field: &str) -> f64 {
    let finished = ended.iter().flat_map(|ended| ended.events("finished"));
    finished.map(|event| event[field].as_f64().unwrap()).sum()
}

/// Sends, over connections of which each has its plan.
fn send_through(
    receiver: &Receiver,
    plan: impl Fn(usize) -> Plan + Send + 'static,
    place: &Place,
    name: &str,
    bytes: &[u8],
) -> Ended {
    let proxy = Proxy::start(receiver.address(), move |connection| (plan(connection), Plan::default()));
    let flags = ["--chunk-size", "48KiB"];
    well(send(&place.file(name, bytes), &proxy.url(), &flags))
}

fn well(ended: Ended) -> Ended {
    assert_eq!(ended.code(), 0, "{ended:?}");
    ended
}

/// Sends several files with one command.
fn send_several(place: &Place, names: impl Iterator<Item = String>, url: &str) -> Ended {
    let mut command = wsferry();
    command.arg("send").args(names.map(|name| place.path(&name))).args([url, "--json"]);
    well(Running::start(&mut command).end())
}

#[test]
fn after_a_hundred_transfers_of_all_kinds_the_counters_equal_what_the_events_said() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--overwrite", "--max-file-size", "30MB"]);
    let url = receiver.url.as_str();
    let mut ended = Vec::new();

    // Small files and a tree, with one command each; some of them once more.
    let mut rng = fastrand::Rng::with_seed(130);
    for number in 0..SMALL {
        place.file(&format!("s{number}"), &random(rng.usize(0..200_000), number as u64));
    }
    for number in 0..TREE {
        let name = format!("tree/{}/{}/f{number}", number % 3, number % 5);
        place.file(&name, &random(rng.usize(0..50_000), 1000 + number as u64));
    }
    ended.push(send_several(&place, (0..SMALL).map(|number| format!("s{number}")), url));
    ended.push(send_several(&place, ["tree".to_owned()].into_iter(), url));
    ended.push(send_several(&place, (0..AGAIN).map(|number| format!("s{number}")), url));
    // What is too large is refused before a byte crosses.
    for number in 0..REFUSED {
        let path = place.file(&format!("huge{number}"), b"");
        std::fs::File::options().write(true).open(&path).unwrap().set_len(31_000_000).unwrap();
        assert_eq!(send(&path, url, &[]).code(), 4);
    }
    // A bit that is flipped on the way, in the middle of a chunk.
    for number in 0..DAMAGED {
        let plan = move |connection| {
            let flip_at = (connection == 0).then_some(2_000_000 + 100_003 * number as u64);
            Plan { flip_at, ..Plan::default() }
        };
        let bytes = random(5_000_000, 2000 + number as u64);
        ended.push(send_through(&receiver, plan, &place, &format!("damaged{number}"), &bytes));
        assert!(place.received(&format!("damaged{number}")) == bytes);
    }
    let before = metrics(&receiver);
    let (new, damaged) = (sum(&ended, "new_bytes"), sum(&ended, "damaged_chunks"));
    assert_eq!(before["wsferry_received_bytes_total"], new, "each byte came once: {before:?}");
    assert_eq!(before["wsferry_resent_bytes_total"], 0.0);
    assert_eq!(before["wsferry_resumes_total"], 0.0);
    assert_eq!(damaged, DAMAGED as f64, "each bit hit a chunk");

    // Files that came, and differ from what is sent now in one block.
    let mut repaired = Vec::new();
    for number in 0..REPAIRED {
        let name = format!("damaged{number}");
        let mut bytes = place.received(&name);
        bytes[4_000_000 + number] ^= 1;
        let sent = well(send(&place.file(&name, &bytes), url, &["--repair"]));
        assert!(place.received(&name) == bytes);
        repaired.push(sent);
    }
    assert_eq!(sum(&repaired, "repaired_blocks"), REPAIRED as f64, "{repaired:?}");
    // Large ones whose first connection is cut.
    let mut resumed = Vec::new();
    for number in 0..RESUMED {
        let cut = 7_000_000 + 2_000_003 * number as u64;
        let plan = move |connection| Plan { cut_after: (connection == 0).then_some(cut), ..Plan::default() };
        let bytes = random(20_000_000, 3000 + number as u64);
        resumed.push(send_through(&receiver, plan, &place, &format!("large{number}"), &bytes));
        assert!(place.received(&format!("large{number}")) == bytes);
    }
    assert!(resumed.iter().all(|ended| !ended.events("resumed").is_empty()), "{resumed:?}");
    // Senders that go away and do not come back.
    for number in 0..GONE {
        let mut peer = Peer::dial(url);
        peer.tell(&offer_as(0, &format!("gone{number}"), 9_000_000));
        peer.hear_type("accept");
    }

    // The last of them is told by then; a cut and a resume are two ends of one file.
    let mut events = Vec::new();
    let is_end = |event: &Value| ["finished", "failed"].contains(&event["event"].as_str().unwrap());
    let mut gone = 0;
    while gone < GONE {
        let event = receiver.running.try_event().expect("it runs");
        let name = event["name"].as_str().unwrap_or_default();
        gone += usize::from(is_end(&event) && name.starts_with("gone"));
        events.push(event);
    }
    let after = metrics(&receiver);
    receiver.running.signal("-TERM");
    let last = receiver.running.end();
    events.extend(last.lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap()));

    let of = |name: &str| after.get(name).copied().unwrap_or(0.0);
    let count = |fits: &dyn Fn(&Value) -> bool| events.iter().filter(|event| fits(event)).count() as f64;
    let is = |event: &Value, kind: &str| event["event"] == kind;
    let result = |word: &str| of(&format!("wsferry_transfers_total{{result=\"{word}\"}}"));
    let failed = |code: u64| count(&|e| is(e, "failed") && !e["name"].is_null() && e["exit_code"] == code);
    assert!(count(&is_end) >= 100.0, "{} ended", count(&is_end));
    assert_eq!(result("received"), count(&|e| is(e, "finished") && e["already_there"] == false));
    assert_eq!(result("already_there"), count(&|e| is(e, "finished") && e["already_there"] == true));
    assert_eq!((result("refused"), failed(4)), (REFUSED as f64, REFUSED as f64));
    assert_eq!(result("interrupted"), failed(3));
    assert_eq!(result("interrupted"), (RESUMED + GONE) as f64, "{after:?}");
    assert_eq!((result("failed"), result("mismatch")), (failed(1), failed(5)));
    let all: f64 = ["received", "already_there", "refused", "interrupted"].map(result).iter().sum();
    assert_eq!(all, count(&is_end), "{after:?}");
    assert_eq!(of("wsferry_transfers_running"), 0.0);
    assert_eq!(of("wsferry_resumes_total"), count(&|e| is(e, "resumed")));
    assert_eq!(of("wsferry_offers_refused_total{code=\"too-large\"}"), REFUSED as f64, "{after:?}");
    // Of which file a damaged chunk was only its sender knows.
    let told = damaged + sum(&repaired, "damaged_chunks") + sum(&resumed, "damaged_chunks");
    assert_eq!(of("wsferry_damaged_chunks_total"), told);
    // Bytes: what each file's last connection brought, and what the one that was cut had brought before.
    let last = events.iter().filter(|e| is(e, "finished")).map(|e| e["new_bytes"].as_f64().unwrap());
    let is_cut = |e: &&Value| is(e, "resumed") && e["name"].as_str().unwrap().starts_with("large");
    let cut = events.iter().filter(is_cut).map(|e| e["offset"].as_f64().unwrap());
    let again = of("wsferry_resent_bytes_total");
    assert_eq!(of("wsferry_received_bytes_total"), last.sum::<f64>() + cut.sum::<f64>() + again, "{after:?}");
    assert_eq!(again, sum(&repaired, "resent_bytes"), "{after:?}");
    // The senders say the same.
    assert_eq!(of("wsferry_received_bytes_total") - again, new + sum(&resumed, "new_bytes"), "{after:?}");
}
