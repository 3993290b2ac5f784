//! What the command line says, and where.

use crate::support::{Place, Receiver, Running, random, wsferry};

#[test]
fn the_exit_codes_are_the_same_in_help_and_document() {
    let document = include_str!("../../src/cli/EVENTS.md");
    for command in [
        &["--help"][..],
        &["send", "--help"],
        &["receive", "--help"],
        &["demo", "--help"],
        &["bench", "--help"],
        &["status", "--help"],
        &["hash", "--help"],
        &["completions", "--help"],
        &["man", "--help"],
    ] {
        let ended = Running::start(wsferry().args(command)).end();
        assert_eq!(ended.code(), 0);
        let help = ended.lines.join("\n");
        let codes = help.split("Exit codes:\n").nth(1).expect("the exit codes are listed");
        assert_eq!(codes.lines().count(), 7);
        for line in codes.lines() {
            let (code, meaning) = line.trim().split_once("  ").unwrap();
            assert!(document.contains(&format!("| {code} | {} |", meaning.trim())), "{line}");
        }
    }
}

#[test]
fn the_flags_about_the_connection_stand_together_in_the_help_of_each_command_that_dials() {
    for (command, own) in
        [("send", &["--exclude", "--window"][..]), ("probe", &["--for"]), ("bench", &["--runs"])]
    {
        let help = Running::start(wsferry().args([command, "-h"])).end().lines.join("\n");
        let help = help.split("\nExamples:\n").next().unwrap();
        let (others, connection) = help.split_once("\nConnection:\n").expect("they have a heading");
        for flag in [
            "--profile <NAME>",
            "--header",
            "--token-file",
            "--user",
            "--ca-cert",
            "--proxy",
            "--connect-to",
            "--no-subprotocol",
        ] {
            assert!(connection.contains(flag) && !others.contains(&format!("{flag} ")), "{flag}: {help}");
        }
        for flag in [&["--quiet", "--json"], own].concat() {
            assert!(others.contains(flag) && !connection.contains(flag), "{flag}: {help}");
        }
    }
}

#[test]
fn quiet_prints_nothing_and_errors_still_come() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let file = place.file("f", &random(1000, 1));
    let quiet = Running::start(wsferry().arg("send").arg(&file).arg(&receiver.url).arg("--quiet")).end();
    assert_eq!((quiet.code(), quiet.lines.len(), quiet.errors.as_str()), (0, 0, ""));
    Running::start(wsferry().arg("send").arg(place.path("none")).arg(&receiver.url).arg("-q"))
        .end()
        .assert_error(1, &["none"]);
}

#[test]
fn the_last_line_says_name_size_time_rate_and_digest() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let bytes = random(3 << 20, 2);
    let file = place.file("photo.jpg", &bytes);
    let ended = Running::start(wsferry().arg("send").arg(&file).arg(&receiver.url)).end();
    let line = ended.lines.last().unwrap();
    assert!(line.starts_with("sent photo.jpg: 3.15 MB in "), "{line}");
    assert!(line.contains(" s (") && line.contains("B/s), blake3 "), "{line}");
    assert!(line.ends_with(&blake3::hash(&bytes).to_string()), "{line}");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let file = place.file("f", &random(5_000_000, 3));
    // `true` closes the pipe at once.
    let mut shell = std::process::Command::new("bash");
    let script = "set -o pipefail; \"$0\" send \"$1\" \"$2\" --json | true; echo \"${PIPESTATUS[0]}\"";
    let output =
        shell.args(["-c", script]).arg(wsferry().get_program()).arg(&file).arg(&receiver.url).output();
    let output = output.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n", "{output:?}");
    assert!(place.received("f") == random(5_000_000, 3));
}

#[test]
#[cfg(target_os = "linux")]
fn output_that_cannot_be_written_is_a_failure() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let file = place.file("f", &random(1000, 4));
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = std::process::Command::new(wsferry().get_program());
    command.arg("send").arg(&file).arg(&receiver.url).arg("--json").stdout(full);
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert_eq!(errors, "wsferry: cannot write to standard output: No space left on device (os error 28)\n");
    assert!(place.received("f") == random(1000, 4));
}

#[test]
fn files_that_do_not_fit_are_not_begun() {
    let place = Place::new();
    for command in [&["demo", "--size", "1PB"][..], &["bench", "--size", "1PB"]] {
        let ended = Running::start(wsferry().args(command).env("TMPDIR", place.path(""))).end();
        ended.assert_error(1, &["are needed in", "are free", "--size"]);
    }
    assert_eq!(std::fs::read_dir(place.path("")).unwrap().count(), 0);
}

#[test]
fn the_demo_resumes_and_ends_well() {
    let ended = Running::start(wsferry().args(["demo", "--size", "64MiB"])).end();
    assert_eq!(ended.code(), 0, "{ended:?}");
    let said = ended.lines.join("\n");
    for words in ["67.1 MB of random bytes", "the connection was cut at", "resumed at", "identical"] {
        assert!(said.contains(words), "{words:?} is missing: {said}");
    }
}
