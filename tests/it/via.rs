//! The protocol over the pipes of a program: started by a shell here, by sshd in the test that needs one.

use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::forest::{Forest, Grove, assert_same, look};
use crate::program::{Program, program};
use crate::support::{PATIENCE, Place, Running, random, wsferry};

/// The program, for a shell.
fn ours() -> String {
    assert_cmd::cargo::cargo_bin!("wsferry").display().to_string()
}

/// A command that writes its process number into a file and becomes this program.
fn noted(place: &Place, arguments: &str) -> String {
    let pid = place.path("pid");
    format!("echo $$ > {0}.new && mv {0}.new {0} && exec {1} {arguments}", pid.display(), ours())
}

fn noted_pid(place: &Place) -> Pid {
    let text = std::fs::read_to_string(place.path("pid")).unwrap();
    Pid::from_raw(text.trim().parse().unwrap()).unwrap()
}

fn via(side: &str, command: &str, paths: &[&Path], flags: &[&str]) -> Running {
    let mut program = wsferry();
    program.args([side, "--json", "--via", command]).args(paths).args(flags);
    Running::start(&mut program)
}

#[test]
fn files_and_trees_go_over_the_pipes_of_a_command_in_both_directions() {
    let grove = Grove::new();
    let bytes = random(7_000_001, 21);
    let file = grove.file("photo.jpg", &bytes);
    Forest { seed: 22, directories: 8, files: 60, largest: 50_000 }.plant(&grove.path("t"));
    let (expected, tree) = (look(&grove.path("t")), grove.path("t"));
    let (first, second) = (grove.path("first"), grove.path("second"));
    let command = format!("{} receive --stdio '{}'", ours(), first.display());
    let ended = via("send", &command, &[&file, &tree], &[]).end();
    assert_eq!(ended.code(), 0, "{ended:?}");
    let command = format!("{} send --stdio '{}' '{}'", ours(), file.display(), tree.display());
    let ended = via("receive", &command, &[&second], &[]).end();
    assert_eq!(ended.code(), 0, "{ended:?}");
    for inbox in [first, second] {
        assert!(std::fs::read(inbox.join("photo.jpg")).unwrap() == bytes, "the file differs");
        assert_same(&expected, &look(&inbox.join("t")));
    }
}

#[test]
fn what_comes_on_standard_input_goes_over_the_pipes_of_a_command() {
    let place = Place::new();
    let bytes = random(5_000_003, 23);
    let file = place.file("input", &bytes);
    let command = format!("{} receive --stdio '{}'", ours(), place.inbox().display());
    let mut sender = wsferry();
    sender.args(["send", "-", "--name", "n", "--json", "--via", &command]);
    sender.stdin(Stdio::from(std::fs::File::open(file).unwrap()));
    let ended = Running::start(&mut sender).end();
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert!(place.received("n") == bytes, "the file differs");
}

#[test]
fn a_command_that_is_killed_is_started_again_and_the_transfer_goes_on_where_it_was() {
    let place = Place::new();
    let bytes = random(9 << 20, 24);
    let file = place.file("large", &bytes);
    // The first time it ends in the middle, and by a signal.
    let ends_once = |command: String, piped: String, other: &Place| {
        format!("if mkdir {}; then {piped}; kill -9 $$; fi; exec {command}", other.path("was-here").display())
    };
    let command = format!("{} receive --stdio '{}'", ours(), place.inbox().display());
    let command = ends_once(command.clone(), format!("stdbuf -o0 head -c 6000000 | {command}"), &place);
    let ended = via("send", &command, &[&file], &["--window", "256KiB"]).end();
    assert_eq!(ended.code(), 0, "{ended:?}");
    let cut = ended.event("reconnecting");
    assert!(cut["reason"].as_str().unwrap().contains("the command ended with signal: 9"), "{cut}");
    assert!(place.received("large") == bytes, "the file differs");
    // What was acknowledged was put in order there: what was in flight, in the pipe and in the window, is sent again.
    let resent = ended.event("finished")["resent_bytes"].as_u64().unwrap();
    assert!(resent <= 2 << 20, "{resent}");

    let other = Place::new();
    let command = format!("{} send --window 256KiB --stdio '{}'", ours(), file.display());
    let command = ends_once(command.clone(), format!("{command} | stdbuf -o0 head -c 6000000"), &other);
    let ended = via("receive", &command, &[&other.inbox()], &[]).end();
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert_eq!(ended.events("reconnecting").len(), 1, "{ended:?}");
    assert!(other.received("large") == bytes, "the file differs");
    assert_eq!(other.listing(), ["large"]);
}

#[test]
fn a_command_that_ends_before_it_said_a_word_is_told_with_its_status_and_not_tried_again() {
    let place = Place::new();
    let file = place.file("f", b"x");
    for (command, words) in [
        ("exit 7", &["`exit 7`", "exit status: 7"][..]),
        ("no-such-program-as-this", &["exit status: 127"]),
        ("true", &["said nothing of wsferry"]),
        ("kill -9 $$", &["signal: 9"]),
        // What it says is what this side said.
        ("cat", &["`cat`", "not allow"]),
        ("echo 'Last login: today'; cat", &["printed \"Last login: today\"", "login shell"]),
        ("printf wsfer", &["printed \"wsfer\""]),
    ] {
        for (side, path) in [("send", &file), ("receive", &place.inbox())] {
            let ended = via(side, command, &[path], &[]).end();
            ended.assert_error(1, words);
            assert!(ended.events("reconnecting").is_empty(), "{ended:?}");
        }
    }
}

#[test]
fn a_command_is_gone_when_the_program_is_also_one_that_does_not_want_to_go() {
    let place = Place::new();
    let file = place.file("f", &random(1000, 25));
    let command = noted(&place, &format!("receive --stdio '{}'", place.inbox().display()));
    assert_eq!(via("send", &command, &[&file], &[]).end().code(), 0);
    assert_eq!(test_kill_process(noted_pid(&place)), Err(rustix::io::Errno::SRCH));
    // It reads nothing, and ends by no signal that can be ignored.
    let pid = place.path("pid");
    let stubborn = format!(
        "trap '' TERM INT HUP; echo wsferry.v1; echo $$ > {0}.new && mv {0}.new {0}; while :; do sleep 0.1; done",
        pid.display()
    );
    std::fs::remove_file(&pid).unwrap();
    let sender = via("send", &stubborn, &[&file], &["--stall-timeout", "300ms"]);
    let ended = sender.end();
    ended.assert_error(3, &["silent"]);
    assert_eq!(test_kill_process(noted_pid(&place)), Err(rustix::io::Errno::SRCH));
}

#[test]
fn a_receiver_that_was_started_to_listen_is_told_of_and_gone_with_the_shell_that_runs_it() {
    let place = Place::new();
    let (file, pid) = (place.file("f", b"x"), place.path("pid"));
    let listens =
        format!("{} receive --listen 127.0.0.1:0 '{}' 2>/dev/null", ours(), place.inbox().display());
    let command = format!("{listens} & echo $! > {}; wait", pid.display());
    let ended = via("send", &command, &[&file], &[]).end();
    ended.assert_error(1, &["printed \"listening on ws://127.0.0.1:", "wsferry, it lacks --stdio"]);
    // It holds no pipe that a test would wait for. Whoever adopts it may take a moment to bury it.
    let stat = format!("/proc/{}/stat", noted_pid(&place).as_raw_nonzero());
    let runs = std::fs::read_to_string(stat).is_ok_and(|stat| !stat.contains(") Z "));
    assert!(!runs, "it runs on");
}

#[test]
fn two_sides_of_a_pipe_that_do_the_same_say_so() {
    let place = Place::new();
    let file = place.file("f", &random(1000, 26));
    let command = format!("{} send --stdio '{}'", ours(), file.display());
    let ended = via("send", &command, &[&file], &[]).end();
    assert_eq!(ended.code(), 1, "{ended:?}");
    assert!(ended.errors.contains("sends too: where both sides send"), "{ended:?}");
    let command = format!("{} receive --stdio '{}'", ours(), place.inbox().display());
    let ended = via("receive", &command, &[&place.inbox()], &[]).end();
    assert_eq!(ended.code(), 1, "{ended:?}");
    assert!(ended.errors.contains("receives too: where both sides receive"), "{ended:?}");
}

#[test]
fn standard_input_that_is_no_pipe_is_refused_and_nothing_is_printed_where_frames_go() {
    let place = Place::new();
    let ended = Running::start(wsferry().args(["receive", "--stdio"]).arg(place.inbox())).end();
    ended.assert_error(2, &["have to be pipes or sockets", "--via"]);
    assert_eq!(ended.lines, [""; 0], "{ended:?}");
    let mut started = wsferry();
    started.args(["receive", "--stdio"]).arg(place.inbox()).stdin(Stdio::piped());
    let mut running = Running::start(&mut started);
    assert_eq!(running.line(), "wsferry.v1");
    drop(running.input());
    let ended = running.end();
    ended.assert_error(1, &["standard input said nothing of wsferry"]);
}

/// A server of its own, with keys of its own, which lets in who runs the tests.
fn ssh(place: &Place) -> (Program<1>, String) {
    let key = |name: &str| {
        let path = place.path(name);
        let mut keygen = program("ssh-keygen");
        let made = keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path).status();
        assert!(made.expect("ssh-keygen, of openssh-client, is there").success());
        path
    };
    let (host, user) = (key("host"), key("user"));
    std::fs::copy(user.with_extension("pub"), place.path("authorized")).unwrap();
    // A server that root starts wants this directory.
    let _ = std::fs::create_dir_all("/run/sshd");
    let server = Program::start(place, "openssh-server", |[port]| {
        let mut sshd = program("sshd");
        // It starts itself anew for each connection, and wants its whole path for that.
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nPidFile none\n",
            host.display(),
            place.path("authorized").display()
        );
        sshd.args(["-D", "-e", "-f"]).arg(place.file("sshd_config", config.as_bytes()));
        sshd
    });
    let command = format!(
        "ssh -p {} -i {} -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
         -o LogLevel=ERROR -F none 127.0.0.1",
        server.ports[0],
        user.display()
    );
    (server, command)
}

#[test]
#[ignore = "needs openssh-server and openssh-client"]
fn programs_sshd_carries_files_both_ways_and_a_connection_that_is_killed_goes_on() {
    let place = Place::new();
    let (server, ssh) = ssh(&place);
    let bytes = random(256 << 20, 27);
    let file = place.file("large", &bytes);
    let command = format!("{ssh} {} receive --stdio '{}'", ours(), place.inbox().display());
    let started = Instant::now();
    let ended = via("send", &command, &[&file], &[]).end_within(4 * PATIENCE);
    assert_eq!(ended.code(), 0, "{ended:?} {}", server.log());
    println!("256 MiB through sshd: {:.2} s", started.elapsed().as_secs_f64());
    assert!(place.received("large") == bytes, "the file differs");

    // The client's process is killed in the middle: what runs at the other end may hold the name for a moment.
    let other = Place::new();
    let noted = format!(
        "echo $$ > {0}.new && mv {0}.new {0} && exec {ssh} {1} receive --stdio '{2}'",
        other.path("pid").display(),
        ours(),
        other.inbox().display()
    );
    let ended = {
        let running = via("send", &noted, &[&file], &["--window", "4MiB"]);
        running.wait_for(|event| event["event"] == "progress" && event["durable"].as_u64() > Some(30 << 20));
        kill_process(noted_pid(&other), Signal::KILL).unwrap();
        running.wait_for(|event| event["event"] == "reconnecting");
        running.end_within(4 * PATIENCE)
    };
    assert_eq!(ended.code(), 0, "{ended:?} {}", server.log());
    assert!(other.received("large") == bytes, "the file differs");
    let resent = ended.event("finished")["resent_bytes"].as_u64().unwrap();
    println!("killed in the middle: {resent} bytes sent twice");
    assert!(resent <= 64 << 20, "{resent}");

    // And from there to here.
    let command = format!("{ssh} {} send --stdio '{}'", ours(), file.display());
    let third = Place::new();
    let ended = via("receive", &command, &[&third.inbox()], &[]).end_within(4 * PATIENCE);
    assert_eq!(ended.code(), 0, "{ended:?} {}", server.log());
    assert!(third.received("large") == bytes, "the file differs");
}

#[test]
fn what_the_other_side_does_with_files_that_it_has_goes_on_behind_the_end_of_this_one() {
    let place = Place::new();
    // More than run at a time.
    let files: Vec<_> =
        (0..6).map(|number| place.file(&format!("f{number}"), &random(5000, number))).collect();
    let (go, inbox) = (place.path("go"), place.inbox());
    let done = |number: usize| place.path(&format!("done-f{number}"));
    let exec = format!(
        "until test -e {}; do sleep 0.05; done; touch {}/done-$WSFERRY_FILE_NAME",
        go.display(),
        place.path("").display()
    );
    // It holds no pipe that a test would wait for.
    let command =
        format!("exec {} receive --stdio --exec \"{exec}\" '{}' 2>/dev/null", ours(), inbox.display());
    let command = command.replace("$WSFERRY", "\\$WSFERRY");
    let paths: Vec<&Path> = files.iter().map(|file| file.as_path()).collect();
    let ended = via("send", &command, &paths, &[]).end();
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert!((0..6).all(|number| !done(number).exists()));
    std::fs::write(go, "").unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !(0..6).all(|number| done(number).exists()) {
        assert!(Instant::now() < deadline, "it was killed");
        std::thread::yield_now();
    }
}
