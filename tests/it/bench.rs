//! `wsferry bench`: what it measures, says and draws.

use serde_json::Value;

use crate::certificates::{Authority, Front};
use crate::proxy::{Plan, Proxy};
use crate::support::{Ended, Place, Receiver, Running, random, send, send_well, wsferry};

fn bench(flags: &[&str]) -> Ended {
    Running::start(wsferry().arg("bench").args(flags)).end()
}

#[test]
fn each_setting_is_measured_beside_the_floor_and_one_is_recommended() {
    let place = Place::new();
    let (svg, html) = (place.path("b.svg"), place.path("b.html"));
    let flags = ["--size", "4MB", "--chunk-sizes", "12KiB,192KiB", "--windows", "1MiB,1GiB", "--runs", "2"];
    let mut command = wsferry();
    command.arg("bench").args(flags).arg("--dir").arg(place.path("")).arg("--svg").arg(&svg);
    let ended = Running::start(command.arg("--html").arg(&html).arg("--json")).end();
    assert_eq!(ended.code(), 0, "{ended:?}");

    let floor = ended.event("floor");
    let (slowest, fastest) = (floor["slowest"].as_f64().unwrap(), floor["fastest"].as_f64().unwrap());
    let measured = ended.events("measured");
    assert_eq!(measured.len(), 4);
    for row in &measured {
        let rate = row["bytes_per_second"].as_f64().unwrap();
        assert!(row["slowest"].as_f64() <= Some(rate) && row["fastest"].as_f64() >= Some(rate), "{row}");
        let of_floor = row["of_floor"].as_f64().unwrap();
        assert!(of_floor >= row["slowest"].as_f64().unwrap() / fastest - 1e-9, "{row} {floor}");
        assert!(of_floor <= row["fastest"].as_f64().unwrap() / slowest + 1e-9, "{row} {floor}");
        // Base64 is a third; headers, masks and acknowledgements are little, and more with smaller chunks.
        let overhead = row["wire_overhead_percent"].as_f64().unwrap();
        assert!(overhead > 33.34 && overhead < 34.0, "{row}");
        for figure in ["sender_cpu_seconds_per_gb", "receiver_cpu_seconds_per_gb"] {
            assert!(row[figure].as_f64().unwrap() > 0.0, "{row}");
        }
        assert!(row["peak_memory"].as_u64().unwrap() > 1 << 20, "{row}");
    }
    assert_eq!(measured[2]["window"], 64 << 20, "the most that a receiver allows");
    let overhead = |row: &Value| row["wire_overhead_percent"].as_f64().unwrap();
    assert!(overhead(&measured[0]) > overhead(&measured[1]) + 0.2, "12 KiB against 192 KiB");
    let recommended = ended.event("recommended");
    let command = recommended["command"].as_str().unwrap();
    assert!(command.starts_with("wsferry send FILE URL --chunk-size 1"), "{command}");
    assert!(command.contains("KiB --window "), "{command}");

    let (svg, html) = (std::fs::read_to_string(svg).unwrap(), std::fs::read_to_string(html).unwrap());
    for part in ["<svg", "12KiB", "192KiB", "window 1MiB", "window 64MiB", "I/O floor", "<circle"] {
        assert!(svg.contains(part), "{part} is missing");
    }
    assert!(html.contains(&svg) && html.matches("<tr").count() == 5);
    assert!(svg.contains("recommended: ") && html.contains("name=viewport"));
    assert!(html.contains(&format!("<pre>{command}</pre>")), "{html}");
    // Nothing else is left.
    let left = std::fs::read_dir(place.path("")).unwrap().count();
    assert_eq!(left, 2, "the picture and the page");
}

#[test]
fn a_real_path_is_measured_to_a_receiver_that_allows_it_and_nothing_stays_there() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--allow-bench"]);
    let flags = ["--size", "4MB", "--chunk-sizes", "24KiB,192KiB", "--runs", "1"];
    let ended = bench(&[&[receiver.url.as_str(), "--json"][..], &flags].concat());
    assert_eq!(ended.code(), 0, "{ended:?}");
    let measured = ended.events("measured");
    assert_eq!(measured.len(), 2);
    assert!(
        measured.iter().all(|row| row["of_floor"].is_null() && row["bytes_per_second"].as_f64() > Some(0.0))
    );
    assert!(ended.event("recommended")["command"].as_str().unwrap().contains(&receiver.url));
    assert_eq!(place.listing(), [""; 0]);
    assert!(!place.inbox().join(".wsferry").exists());
}

#[test]
fn a_path_with_tls_and_a_token_is_measured_with_the_flags_that_sending_takes() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--allow-bench", "--token", "SECRET"]);
    let authority = Authority::new("An Authority");
    let ca = place.file("ca.pem", authority.issued.pem.as_bytes());
    let token = place.file("token", b"SECRET");
    let front = Front::start(receiver.address(), authority.issue(&["localhost"]).server(None));
    let (url, ca, token) = (front.url(), ca.to_str().unwrap(), token.to_str().unwrap());
    let size = ["--size", "1MB", "--runs", "1", "--json"];
    let trusting = [&[url.as_str(), "--ca-cert", ca][..], &size].concat();
    // Chunks that are larger than what the profile's frames hold are measured once, as what they are lowered to.
    let flags = ["--profile", "tomcat", "--chunk-sizes", "3KiB,24KiB,192KiB"];
    for who in [["--token", "SECRET"], ["--token-file", token], ["--header", "Authorization: Bearer SECRET"]]
    {
        let ended = bench(&[&trusting[..], &who, &flags].concat());
        assert_eq!(ended.code(), 0, "{who:?}: {ended:?}");
        let chunks: Vec<_> =
            ended.events("measured").iter().map(|row| row["chunk_size"].as_u64().unwrap()).collect();
        assert!(matches!(chunks[..], [3072, 6000..=6144]), "{chunks:?}");
        let command = ended.event("recommended")["command"].as_str().unwrap().to_owned();
        assert!(command.ends_with(" --window 32MiB --frame-limit 8KiB --profile tomcat"), "{command}");
        assert!(!format!("{ended:?}").contains("SECRET"), "{ended:?}");
    }
    bench(&trusting).assert_error(4, &["HTTP 401"]);
    bench(&[&[url.as_str()][..], &size].concat()).assert_error(1, &["no TLS with localhost"]);
    assert_eq!(place.listing(), [""; 0]);
}

#[test]
fn what_is_secret_in_a_url_is_in_nothing_that_a_bench_says() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--allow-bench"]);
    let url = format!("{}/?key=SECRET", receiver.url.replace("ws://", "ws://me:SECRET@"));
    let flags = ["--size", "1MB", "--runs", "1", "--chunk-sizes", "24KiB"];
    for format in [&[][..], &["--json"]] {
        let ended = bench(&[&[url.as_str()][..], &flags, format].concat());
        assert_eq!(ended.code(), 0, "{ended:?}");
        assert!(!format!("{ended:?}").contains("SECRET"), "{ended:?}");
    }
}

#[test]
fn a_path_that_is_cut_ends_a_bench_which_has_nothing_to_resume() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--allow-bench"]);
    let proxy = Proxy::start(receiver.address(), |_| {
        (Plan { cut_after: Some(2_000_000), ..Plan::default() }, Plan::default())
    });
    let ended = bench(&[&proxy.url(), "--size", "8MB", "--runs", "1"]);
    ended.assert_error(3, &["the connection to", "was lost"]);
    assert!(!ended.errors.contains("resume"), "{ended:?}");
}

#[test]
fn a_receiver_that_was_not_told_to_takes_no_measurements() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    bench(&[&receiver.url, "--size", "1MB"]).assert_error(4, &["--allow-bench"]);
    assert_eq!(place.listing(), [""; 0]);
}

#[test]
fn a_file_to_be_discarded_is_checked_and_goes_also_when_it_is_cut() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--allow-bench"]);
    let file = place.file("f", &random(1_000_000, 1));
    assert_eq!(send(&file, &receiver.url, &["--discard"]).code(), 0);
    receiver.running.wait_for(|event| event["event"] == "finished");
    assert_eq!(place.listing(), [""; 0]);

    let slow = place.file("slow", &random(200_000_000, 2));
    let mut sender =
        Running::start(wsferry().arg("send").arg(&slow).args([&receiver.url, "--discard", "--json"]));
    sender.wait_for(|event| event["event"] == "started");
    sender.kill();
    receiver.running.wait_for(|event| event["event"] == "failed");
    assert_eq!(place.listing(), [""; 0]);
    assert!(!place.inbox().join(".wsferry").exists());
}

#[test]
fn a_file_to_be_discarded_leaves_partial_and_finished_files_of_that_name_alone() {
    let place = Place::new();
    let bytes = random(40_000_000, 3);
    let (file, other) = (place.file("f", &bytes), place.file("other/f", &random(5_000_000, 4)));
    let finished = place.file("done", b"finished");
    let receiver = Receiver::start(&place, &["--allow-bench"]);
    send(&finished, &receiver.url, &[]);
    // A partial file of that name, cut half-way.
    let proxy = Proxy::start(receiver.address(), |_| {
        (Plan { cut_after: Some(30_000_000), ..Plan::default() }, Plan::default())
    });
    assert_eq!(send(&file, &proxy.url(), &["--retry-for", "0s"]).code(), 3);
    for flags in [&["--discard"][..], &["--discard", "--name", "done"]] {
        assert_eq!(send(&other, &receiver.url, flags).code(), 0);
    }
    let resumed = send_well(&file, &receiver.url, &[]);
    assert!(resumed["resumed_at"].as_u64() >= Some(12 << 20), "{resumed}");
    assert!(place.received("f") == bytes && place.received("done") == b"finished");
}

#[test]
fn what_a_killed_receiver_was_to_discard_is_swept_when_it_starts_again() {
    let place = Place::new();
    let mut receiver = Receiver::start(&place, &["--allow-bench"]);
    let proxy = Proxy::start(receiver.address(), |_| {
        (Plan { stall_after: Some(8_000_000), ..Plan::default() }, Plan::default())
    });
    let file = place.file("f", &random(40_000_000, 5));
    let _sender =
        Running::start(wsferry().arg("send").arg(&file).args([&proxy.url(), "--discard", "--json"]));
    let at_work = |event: &Value| event["event"] == "progress" && event["acknowledged"].as_u64() > Some(0);
    receiver.running.wait_for(at_work);
    receiver.running.kill();
    assert!(place.inbox().join(".wsferry").exists());
    let _receiver = Receiver::start(&place, &[]);
    assert!(!place.inbox().join(".wsferry").exists());
}

#[test]
fn a_repair_that_is_to_be_discarded_is_a_violation() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--allow-bench"]);
    let file = place.file("secret", b"what stands here");
    send(&file, &receiver.url, &[]);
    // It would hand out digests of what is there.
    send(&file, &receiver.url, &["--discard", "--repair"]).assert_error(1, &["offer.discard"]);
}

#[test]
fn flags_of_a_bench_that_make_no_sense_are_said_at_once() {
    for (flags, words) in [
        (&["--chunk-sizes", "1B"][..], "--chunk-sizes"),
        (&["--windows", "0B"], "--windows"),
        (&["--runs", "0"], "--runs"),
        (&["ftp://127.0.0.1"], "ws://"),
        (&["--svg", "b", "--html", "b"], "same file"),
        (&["--token", "t"], "--token says how a URL is dialled"),
        (&["--profile", "tomcat"], "--profile says how a URL is dialled"),
        (&["ws://127.0.0.1:1", "--ca-cert", "/nonexistent"], "--ca-cert"),
        (&["--frame-limit", "1KiB"], "--frame-limit"),
    ] {
        bench(flags).assert_error(2, &[words]);
    }
    bench(&["--dir", "/nonexistent", "--size", "1MB"]).assert_error(1, &["/nonexistent"]);
    // A plot that cannot be written is said before anything is done.
    bench(&["--svg", "/nonexistent/b.svg", "--dir", "/nowhere"]).assert_error(1, &["/nonexistent/b.svg"]);
    let place = Place::new();
    let svg = place.path("b.svg");
    bench(&["--svg", svg.to_str().unwrap(), "--dir", "/nowhere"]).assert_error(1, &["/nowhere"]);
    assert!(!svg.exists(), "nothing was drawn");
}

#[test]
fn a_bench_that_is_told_to_stop_leaves_nothing() {
    let place = Place::new();
    let mut command = wsferry();
    command.arg("bench").args(["--size", "64MiB", "--runs", "1000"]).arg("--dir").arg(place.path(""));
    let bench = Running::start(&mut command);
    // It is at work once its directory is there.
    while std::fs::read_dir(place.path("")).unwrap().count() == 0 {
        std::thread::yield_now();
    }
    bench.signal("-INT");
    bench.end().assert_error(130, &["stopped"]);
    assert_eq!(std::fs::read_dir(place.path("")).unwrap().count(), 0);
}

#[test]
fn what_was_measured_before_a_bench_is_stopped_is_told() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--allow-bench"]);
    let mut command = wsferry();
    command.args(["bench", &receiver.url, "--size", "300kB", "--chunk-sizes", "12KiB", "--runs", "100000"]);
    let bench = Running::start(command.arg("--dir").arg(place.path("")));
    for _ in 0..3 {
        receiver.running.wait_for(|event| event["event"] == "finished");
    }
    bench.signal("-INT");
    let ended = bench.end();
    ended.assert_error(130, &["stopped"]);
    let rows: Vec<&String> =
        ended.lines.iter().filter(|line| line.trim_start().starts_with("12KiB")).collect();
    assert_eq!(rows.len(), 1, "{ended:?}");
    assert!(ended.lines.iter().any(|line| line.contains("wsferry send FILE ")), "{ended:?}");
}
