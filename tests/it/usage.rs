//! What is said of command lines that make no sense, and of what cannot be begun: `SNAPSHOTS=overwrite` writes it anew.

use std::net::TcpListener;
use std::path::Path;
use std::thread;
use std::time::Duration;

use snapbox::{Assert, Data};

use crate::support::{Place, Running, wsferry};

/// Command lines behind `wsferry`, as a shell takes them apart but for `''`, which is nothing. They run in a directory with
/// the files that `a_place` makes; `TAKEN` is an address where somebody listens.
const SENSELESS: &[&str] = &[
    // No command, or none that there is.
    "",
    "fly",
    "sned f ws://127.0.0.1:9000",
    "help fly",
    "--no-such-flag",
    // Values.
    "send f ftp://127.0.0.1:9000",
    "send f ws://127.0.0.1:99999",
    "send f ws://127.0.0.1:0",
    "send f ws://me:SECRET@127.0.0.1:0?key=SECRET",
    "send f ws://",
    "send f g",
    "send f ws://127.0.0.1:9000 --chunk-size 2B",
    "send f ws://127.0.0.1:9000 --chunk-size many",
    "send f ws://127.0.0.1:9000 --frame-limit 100B",
    "send f ws://127.0.0.1:9000 --frame-limit lots",
    "send f ws://127.0.0.1:9000 --window 0B",
    "send f ws://127.0.0.1:9000 --limit 0",
    "send f ws://127.0.0.1:9000 --limit fast",
    "send f ws://127.0.0.1:9000 --exclude [a",
    "send f ws://127.0.0.1:9000 --include /",
    "send f ws://127.0.0.1:9000 --exclude-from none",
    "send f ws://127.0.0.1:9000 --stall-timeout 0s",
    "send f ws://127.0.0.1:9000 --stall-timeout soon",
    "send f ws://127.0.0.1:9000 --retry-for 10",
    "send f ws://127.0.0.1:9000 --max-connection-age 1ms",
    "send f ws://127.0.0.1:9000 --name ../x",
    "send f ws://127.0.0.1:9000 --name a/b",
    "send f ws://127.0.0.1:9000 --name ..",
    "send f ws://127.0.0.1:9000 --name .wsferry",
    "send f ws://127.0.0.1:9000 --name ''",
    "send f ws://127.0.0.1:9000 --links maybe",
    "send f ws://127.0.0.1:9000 --color sometimes",
    "send f ws://127.0.0.1:9000 --profile tomcats",
    "send f ws://127.0.0.1:9000 --header nonsense",
    "send f ws://127.0.0.1:9000 --token-file none",
    "send f ws://127.0.0.1:9000 --proxy ftp://127.0.0.1",
    "send f ws://127.0.0.1:9000 --connect-to nowhere",
    "send f wss://127.0.0.1:9000 --ca-cert none",
    "send f wss://127.0.0.1:9000 --ca-cert f",
    "send f wss://127.0.0.1:9000 --cert f",
    "send f wss://127.0.0.1:9000 --cert f --key f",
    "send f wss://127.0.0.1:9000 --server-name a/b",
    "send f ws://127.0.0.1:9000 --no-such-flag",
    "send f ws://127.0.0.1:9000 --chunksize 3KiB",
    "send f ws://127.0.0.1:9000 --window",
    // What does not go together.
    "send",
    "send f",
    "send ws://127.0.0.1:9000",
    "send f ws://127.0.0.1:9000 ws://127.0.0.1:9001",
    "send f g ws://127.0.0.1:9000 --name h",
    "send f d/f ws://127.0.0.1:9000",
    "send - ws://127.0.0.1:9000",
    "send - f ws://127.0.0.1:9000 --name x",
    "send - ws://127.0.0.1:9000 --name x --repair",
    "send - ws://127.0.0.1:9000 --name x --plain",
    "send f g ws://127.0.0.1:9000 --follow",
    "send f ws://127.0.0.1:9000 --plain --dry-run",
    "send f ws://127.0.0.1:9000 --json --quiet",
    "send f ws://127.0.0.1:9000 --ca-cert f",
    "send f ws://127.0.0.1:9000 --proxy http://127.0.0.1:1 --no-proxy",
    "send f ws://127.0.0.1:9000 --ipv4 --ipv6",
    "send f ws://127.0.0.1:9000 --token a --user b:c",
    "send f ws://127.0.0.1:9000 --token a --token-file f",
    "send f ws://127.0.0.1:9000 --open",
    "send f ws://127.0.0.1:9000 --listen 127.0.0.1:0",
    "send f --listen 127.0.0.1:0 --wait",
    "send f --listen 127.0.0.1:0 --plain",
    "send f --listen 127.0.0.1:0 --user a:b",
    "send f --via cat --listen 127.0.0.1:0",
    "send f --via cat --proxy http://127.0.0.1:1",
    "send f --stdio --follow",
    "receive a b c",
    "receive in ws://127.0.0.1:9000",
    "receive in --listen 9000",
    "receive in --listen :9000",
    "receive in --listen 127.0.0.1:many",
    "receive in --listen 0.0.0.0:0",
    "receive in --retry-for 1h",
    "receive in --proxy http://127.0.0.1:1",
    "receive in --frame-limit 8KiB",
    "receive ws://127.0.0.1:9000 in --frame-limit 100B",
    "receive ws://127.0.0.1:9000 in --listen 127.0.0.1:0",
    "receive ws://127.0.0.1:9000 in --plain",
    "receive ws://127.0.0.1:9000 in --via cat",
    "receive in --stdout",
    "receive --stdout --exec true",
    "receive --stdio --retry-for 1h in",
    "receive in --stdio",
    "receive in --tls-cert f",
    "receive in --path up",
    "receive in --allow-origin page.example",
    "receive in --trust-proxy everybody",
    "receive in --token ''",
    "receive in --max-connections 0",
    "receive in --keep-partial never",
    "probe",
    "probe f",
    "probe ws://127.0.0.1:9000 --for 2days",
    "probe ws://127.0.0.1:9000 --profiles",
    "bench f",
    "bench --size 0B",
    "bench --runs 0",
    "bench --chunk-sizes 1B",
    "bench --windows ''",
    "status --older-than 1h",
    "config fly",
    "--config none config",
    "completions tcsh",
];

/// The same of what makes sense, and cannot be done here.
const IMPOSSIBLE: &[&str] = &[
    "send none ws://TAKEN",
    "send none --listen 127.0.0.1:0",
    "receive f --listen 127.0.0.1:0",
    "receive in --listen unix:f",
    "receive in --listen TAKEN",
    "receive in --listen 127.0.0.1:0 --tls-cert none --tls-key none",
    "receive in --listen 127.0.0.1:0 --tls-cert f --tls-key f",
    "status f",
    "hash none",
    "hash d",
    "bench --dir none --size 1MB",
    "man f",
];

fn a_place() -> Place {
    let place = Place::new();
    for name in ["f", "g", "d/f"] {
        place.file(name, b"no certificate\n");
    }
    place
}

/// The command line, what is said of it, and the exit code. None takes its time: what begins to run after all is ended.
fn said(place: &Place, line: &str, taken: &str) -> String {
    let word = |word: &str| word.trim_matches('\'').replace("TAKEN", taken);
    let words: Vec<String> = line.split_whitespace().map(word).collect();
    let mut command = wsferry();
    let running = Running::start(command.args(&words).current_dir(place.path("")).env("COLUMNS", "100"));
    let ended = running.end_within(Duration::from_secs(20));
    let output: String = ended.lines.iter().map(|line| format!("{line}\n")).collect();
    let said = format!("{output}{}", ended.errors).replace(taken, "TAKEN");
    assert!(!said.contains("panicked") && !said.contains("SECRET"), "{line}: {said}");
    format!("$ wsferry {line}\n{}\nexit code {}\n\n", said.trim_end(), ended.code())
}

/// What is said of all these lines, two at a time, is compared; each has this exit code.
fn compare(name: &str, lines: &[&str], code: i32) {
    let place = a_place();
    // It takes connections, and answers none.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    let each = |lines: &[&str]| lines.iter().map(|line| said(&place, line, &taken)).collect::<String>();
    let (one, other) = lines.split_at(lines.len() / 2);
    let said = thread::scope(|scope| {
        let one = scope.spawn(|| each(one));
        let other = each(other);
        one.join().unwrap() + &other
    });
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/it/usage/{name}.txt"));
    Assert::new().action_env("SNAPSHOTS").eq(said.clone(), Data::read_from(&file, None).raw());
    assert_eq!(said.matches(&format!("\nexit code {code}\n")).count(), lines.len(), "{said}");
}

#[test]
fn what_is_said_of_command_lines_that_make_no_sense_is_as_it_was_read_last() {
    compare("senseless", SENSELESS, 2);
}

#[test]
fn what_is_said_of_what_cannot_be_done_here_is_as_it_was_read_last() {
    compare("impossible", IMPOSSIBLE, 1);
}
