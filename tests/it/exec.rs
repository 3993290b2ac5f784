//! `receive --exec`: what runs for each file that was stored.

use crate::support::{Place, Receiver, Running, random, send, send_well, wsferry};

/// A command that writes what it was told into a file of this place, a line for each.
fn telling(place: &Place) -> String {
    let told = place.path("told");
    format!(
        "printf '%s|' \"$WSFERRY_FILE_PATH\" \"$WSFERRY_FILE_NAME\" \"$WSFERRY_FILE_SIZE\" \"$WSFERRY_FILE_BLAKE3\" \"$WSFERRY_FILE_RESULT\" \
         \"${{WSFERRY_TOKEN-none}}${{WSFERRY_HEADER-}}\" >> {0}; echo >> {0}; test -n \"$WSFERRY_FILE_PEER\"; echo on standard output",
        told.display()
    )
}

#[test]
fn a_command_runs_for_a_file_with_all_that_is_known_of_it_in_its_environment() {
    let place = Place::new();
    let bytes = random(5_000_000, 1);
    // What a shell would take for its own, were it among its words.
    let name = "a'; touch pwned; $(touch pwned) `touch pwned`";
    let file = place.file(name, &bytes);
    let mut receiver = wsferry();
    receiver.arg("receive").arg(place.inbox()).args(["--once", "--json", "--listen", "127.0.0.1:0"]);
    receiver
        .args(["--exec", &telling(&place)])
        .env("WSFERRY_TOKEN", "SECRET")
        .env("WSFERRY_HEADER", "X-Key: SECRET")
        .current_dir(place.path(""));
    let receiver = Receiver::launch(&mut receiver);
    send_well(&file, &receiver.url, &["--token", "SECRET"]);
    let ended = receiver.running.end();
    assert_eq!(ended.code(), 0, "{ended:?}");
    let exec = ended.event("exec");
    assert_eq!((&exec["name"], &exec["exit_code"]), (&name.into(), &0.into()), "{exec}");
    assert!(exec["reason"].is_null() && exec["seconds"].is_number(), "{exec}");
    let path = place.inbox().canonicalize().unwrap().join(name);
    let digest = blake3::hash(&bytes);
    let expected = format!("{}|{name}|5000000|{digest}|received|none|\n", path.display());
    assert_eq!(std::fs::read_to_string(place.path("told")).unwrap(), expected);
    assert!(ended.errors.contains("on standard output"), "{ended:?}");
    assert!(!place.path("pwned").exists());
}

#[test]
fn a_command_that_fails_is_said_and_loses_no_file() {
    let place = Place::new();
    let file = place.file("f", b"content");
    for (command, code) in [("exit 7", Some(7)), ("kill -9 $$", None)] {
        let _ = std::fs::remove_dir_all(place.inbox());
        let receiver = Receiver::start(&place, &["--once", "--exec", command]);
        send_well(&file, &receiver.url, &[]);
        let ended = receiver.running.end();
        ended.assert_error(1, &["--exec failed for f, which is kept"]);
        assert_eq!(ended.event("exec")["exit_code"].as_i64(), code, "{ended:?}");
        assert_eq!(place.received("f"), b"content");
    }
}

#[test]
fn each_file_of_a_directory_has_its_command_and_what_was_there_says_so() {
    let place = Place::new();
    for at in 0..30 {
        place.file(&format!("dir/deep/{at}"), &random(100, at));
    }
    let told = |receiver: Receiver| {
        let ended = receiver.running.end();
        assert_eq!((ended.code(), ended.events("exec").len()), (0, 30), "{ended:?}");
        let told = std::fs::read_to_string(place.path("told")).unwrap();
        std::fs::remove_file(place.path("told")).unwrap();
        told
    };
    let command = telling(&place);
    let receiver = Receiver::start(&place, &["--once", "--exec", &command]);
    assert_eq!(send(&place.path("dir"), &receiver.url, &[]).code(), 0);
    let first = told(receiver);
    assert_eq!(first.matches("|received|").count(), 30, "{first}");
    assert!(first.contains("|dir/deep/17|100|"), "{first}");
    let receiver = Receiver::start(&place, &["--once", "--exec", &command]);
    assert_eq!(send(&place.path("dir"), &receiver.url, &[]).code(), 0);
    assert_eq!(told(receiver).matches("|already-there|").count(), 30);
}

#[test]
fn commands_hold_up_no_transfer_run_a_few_at_a_time_and_are_waited_for() {
    let place = Place::new();
    // Each waits for the test.
    let gate = place.path("gate");
    let running = place.path("running");
    std::fs::create_dir(&running).unwrap();
    let command = format!(
        "touch {0}/$$; ls {0} | wc -l >> {2}; until test -e {1}; do sleep 0.01; done; rm {0}/$$",
        running.display(),
        gate.display(),
        place.path("counts").display()
    );
    let receiver = Receiver::start(&place, &["--once", "--exec", &command]);
    for at in 0..10 {
        place.file(&format!("dir/{at}"), &random(10, at));
    }
    // All of it is there while every command waits.
    assert_eq!(send(&place.path("dir"), &receiver.url, &[]).code(), 0);
    std::fs::write(gate, b"").unwrap();
    let ended = receiver.running.end();
    assert_eq!((ended.code(), ended.events("exec").len()), (0, 10), "{ended:?}");
    let counts = std::fs::read_to_string(place.path("counts")).unwrap();
    let most = counts.lines().map(|line| line.trim().parse::<u32>().unwrap()).max().unwrap();
    assert!((1..=4).contains(&most), "{counts}");
    assert_eq!(std::fs::read_dir(running).unwrap().count(), 0);
}

#[test]
fn without_an_inbox_there_is_nothing_to_run_a_command_for() {
    let mut command = wsferry();
    let ended = Running::start(command.args(["receive", "--once", "--stdout", "--exec", "true"])).end();
    assert_eq!(ended.code(), 2, "{ended:?}");
}
