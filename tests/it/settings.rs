//! Where the value of a flag comes from: command line, environment, file, default.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::Receiver as Receiving;

use serde_json::Value;

use crate::certificates::self_signed;
use crate::dial::{answering, values};
use crate::support::{Ended, PATIENCE, Place, Receiver, Running, random, send_well, wsferry};

/// The program with a configuration file that says this.
fn with_file(place: &Place, text: &str) -> Command {
    let file = place.file("config.toml", text.as_bytes());
    let mut command = wsferry();
    command.env("WSFERRY_CONFIG", file);
    command
}

/// What `wsferry config` says of a flag: its value and where it comes from.
fn held(mut program: Command, command: &str, flag: &str) -> (String, String) {
    let ended = Running::start(program.args(["config", command, "--json"])).end();
    assert_eq!(ended.code(), 0, "{ended:?}");
    let settings = ended.events("setting");
    let found = settings.iter().find(|setting| setting["flag"] == flag).expect("each flag is told");
    let text = |field: &str| found[field].as_str().unwrap_or("-").to_owned();
    (text("value"), text("source"))
}

fn end(command: &mut Command) -> Ended {
    Running::start(command).end()
}

#[test]
fn the_command_line_comes_before_the_environment_before_the_file_before_the_default() {
    let place = Place::new();
    let text =
        "retry-for = \"1h\"\nstall-timeout = \"11s\"\n[send]\nstall-timeout = \"12s\"\nwindow = 65536\n";
    let program = || with_file(&place, text);
    let is = |value: &str, source: &str| (value.to_owned(), source.to_owned());
    assert_eq!(held(program(), "send", "--retry-for"), is("1h", "file"));
    assert_eq!(held(program(), "send", "--window"), is("65536", "file"));
    assert_eq!(held(program(), "send", "--name"), is("-", "default"));
    assert_eq!(held(program(), "send", "--links"), is("skip", "default"));
    // What stands below a command's name is for that one.
    assert_eq!(held(program(), "send", "--stall-timeout"), is("12s", "file"));
    assert_eq!(held(program(), "receive", "--stall-timeout"), is("11s", "file"));
    let mut set = program();
    set.env("WSFERRY_STALL_TIMEOUT", "13s").env("WSFERRY_WINDOW", "");
    assert_eq!(held(set, "send", "--stall-timeout"), is("13s", "environment"));
    // And it is what is done: each place is heard, and the one before it wins.
    let digest = |environment: Option<&str>, flags: &[&str]| {
        let mut command = with_file(&place, "[hash]\njson = true\n");
        command.arg("hash").args(flags).envs(environment.map(|text| ("WSFERRY_JSON", text)));
        end(&mut command).lines[0].starts_with('{')
    };
    assert!(digest(None, &[]) && digest(Some("1"), &[]) && digest(Some("0"), &["--json"]));
    assert!(!digest(Some("0"), &[]));
}

#[test]
fn of_what_does_not_go_together_the_place_that_comes_first_decides() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let file = place.file("f", &random(1000, 1));
    let send = |mut command: Command, flags: &[&str]| {
        let ended = end(command.arg("send").arg(&file).arg(&receiver.url).args(flags));
        assert_eq!(ended.code(), 0, "{ended:?}");
        ended.lines
    };
    assert!(send(with_file(&place, "json = true"), &[])[0].starts_with('{'));
    assert_eq!(send(with_file(&place, "json = true"), &["--quiet"]), [""; 0]);
    let mut quiet = with_file(&place, "json = true");
    quiet.env("WSFERRY_QUIET", "yes");
    assert_eq!(send(quiet, &[]), [""; 0]);
    // Of one place it is an error, which says where.
    let ended =
        end(with_file(&place, "json = true\n\n[send]\nquiet = true\n").arg("send").args(["f", "ws://h"]));
    ended.assert_error(2, &["'--quiet' cannot be used with '--json'", "config.toml:4", "config.toml:1"]);
    // And what is wrong with the command line is told as ever.
    let ended = end(with_file(&place, "retry-for = \"1h\"").args(["send", "f", "ws://h", "--bogus"]));
    assert!(ended.errors.starts_with("error: unexpected argument '--bogus' found"), "{ended:?}");
    assert_eq!(ended.code(), 2);
}

#[test]
fn what_makes_no_sense_is_told_with_its_place_and_what_was_meant() {
    let place = Place::new();
    for (text, line, words) in [
        ("retry-fro = \"1h\"", 1, &["no command has the flag --retry-fro", "did you mean retry-for?"][..]),
        ("[send]\nretry_for = \"1h\"", 2, &["`wsferry send` has no flag --retry_for", "retry-for?"]),
        ("# one\n\n[sned]\nx = 1", 3, &["there is no command sned; did you mean send?"]),
        ("[receive]\nwindow = \"1MiB\"", 2, &["`wsferry receive` has no flag --window"]),
        ("[send]\nwindow = true", 2, &["window: expected a text in quotes, not true or false"]),
        ("quiet = \"yes\"", 1, &["quiet is \"yes\": expected true or false, not a text"]),
        ("retry-for = \"abc\"", 1, &["retry-for is \"abc\": expected a duration such as 30s"]),
        ("retry-for = 30", 1, &["retry-for: expected a duration such as 30s"]),
        ("links = \"copy\"", 1, &["links is \"copy\": expected one of skip, keep, follow"]),
        ("[receive]\n\nverbose = 3000", 3, &["verbose: expected how often, such as 1"]),
        ("[send]\nexclude = [\"a\", 2020-01-01]", 2, &["exclude: expected a text in quotes, not a date"]),
        ("config = \"other.toml\"", 1, &["no command has the flag --config"]),
        ("wait = true\nwait = false", 2, &["duplicate key"]),
        ("[send", 1, &["table"]),
    ] {
        let ended = end(with_file(&place, text).args(["hash"]));
        ended.assert_error(2, &[&[format!("config.toml:{line}: ").as_str()], words].concat());
        assert_eq!(ended.lines, [""; 0]);
    }
    for (name, value, words) in [
        ("WSFERRY_RETRY_FOR", "soon", &["WSFERRY_RETRY_FOR is \"soon\": expected a duration"][..]),
        ("WSFERRY_QUIET", "maybe", &["WSFERRY_QUIET is \"maybe\": expected true or false"]),
        ("WSFERRY_LINKS", "copy", &["expected one of skip, keep, follow"]),
        (
            "WSFERRY_CONFIG",
            "/there/is/none.toml",
            &["cannot read the configuration file /there/is/none.toml"],
        ),
    ] {
        end(wsferry().args(["send", "f", "ws://h"]).env(name, value)).assert_error(2, words);
    }
    let ended = end(wsferry().args(["hash", "--config", "/there/is/none.toml"]));
    ended.assert_error(2, &["/there/is/none.toml", "No such file"]);
    // A variable of something else is none of ours, but may be meant for it.
    let ended = end(wsferry().args(["config", "hash"]).env("WSFERRY_RETRY_FRO", "1h"));
    ended.assert_error(
        0,
        &["no flag belongs to the variable WSFERRY_RETRY_FRO; did you mean WSFERRY_RETRY_FOR?"],
    );
    // To a program it is told as everything else.
    let mut json = with_file(&place, "[send]\nretry-fro = 1");
    let failed = end(json.args(["send", "f", "ws://h", "--json"])).event("failed");
    assert_eq!(failed["exit_code"], 2);
    assert!(failed["reason"].as_str().unwrap().contains("config.toml:2: "), "{failed}");
}

#[test]
fn the_file_is_where_the_platform_keeps_such_things() {
    let place = Place::new();
    place.file("xdg/wsferry/config.toml", b"retry-for = \"1h\"");
    place.file("home/.config/wsferry/config.toml", b"retry-for = \"2h\"");
    let other = place.file("other.toml", b"retry-for = \"3h\"");
    let retry = |xdg: Option<&str>, home: &str, named: Option<&PathBuf>| {
        let mut command = wsferry();
        command.env_remove("WSFERRY_CONFIG").env_remove("XDG_CONFIG_HOME").env("HOME", place.path(home));
        command.envs(xdg.map(|xdg| ("XDG_CONFIG_HOME", place.path(xdg))));
        command.args(named.map(|named| format!("--config={}", named.display())));
        held(command, "send", "--retry-for").0
    };
    assert_eq!(retry(Some("xdg"), "home", None), "1h");
    assert_eq!(retry(None, "home", None), "2h");
    assert_eq!(retry(None, "none", None), "10min");
    assert_eq!(retry(Some("xdg"), "home", Some(&other)), "3h");
    // One that is there and cannot be read is not passed over.
    std::fs::create_dir_all(place.path("odd/wsferry/config.toml")).unwrap();
    let mut command = wsferry();
    command.env_remove("WSFERRY_CONFIG").env("XDG_CONFIG_HOME", place.path("odd")).arg("config");
    end(&mut command).assert_error(2, &["cannot read the configuration file", "Is a directory"]);
}

#[test]
fn a_profile_stands_behind_the_flags_of_the_place_that_names_it() {
    let place = Place::new();
    let limit = |text: &str, variables: &[(&str, &str)]| {
        let mut command = with_file(&place, text);
        command.envs(variables.iter().copied());
        held(command, "send", "--frame-limit").0
    };
    assert_eq!(limit("profile = \"tomcat\"", &[]), "8KiB");
    assert_eq!(limit("profile = \"tomcat\"\nframe-limit = \"4KiB\"", &[]), "4KiB");
    assert_eq!(limit("frame-limit = \"4KiB\"", &[("WSFERRY_PROFILE", "tomcat")]), "8KiB");
    assert_eq!(limit("profile = \"tomcat\"", &[("WSFERRY_PROFILE", "signalr")]), "31KiB");
    assert_eq!(limit("profile = \"tomcat\"", &[("WSFERRY_FRAME_LIMIT", "5KiB")]), "5KiB");
    // It gives way to what was given, and not to what stands beside it.
    let receiver = Receiver::start(&place, &["--plain"]);
    let file = place.file("f", &random(1000, 2));
    let url = format!("{}/f", receiver.url);
    let ended = end(with_file(&place, "profile = \"tomcat\"").args(["send", "--plain"]).arg(&file).arg(&url));
    assert_eq!(ended.code(), 0, "{ended:?}");
    let ended = end(with_file(&place, "profile = \"tomcat\"\nplain = true").args(["send", "f", "ws://h"]));
    ended.assert_error(2, &["config.toml:1", "--profile tomcat sets --frame-limit 8KiB", "with --plain"]);
}

#[test]
fn a_pattern_that_is_given_decides_before_those_that_are_set() {
    let place = Place::new();
    for name in ["tree/a.o", "tree/keep.o", "tree/a.c"] {
        place.file(name, name.as_bytes());
    }
    let receiver = Receiver::start(&place, &[]);
    let mut command = with_file(&place, "[send]\nexclude = [\"*.o\"]\n");
    let ended = end(command.arg("send").arg("--include=keep.o").arg(place.path("tree")).arg(&receiver.url));
    assert_eq!(ended.code(), 0, "{ended:?}");
    let mut names: Vec<_> = std::fs::read_dir(place.inbox().join("tree")).unwrap().collect();
    names.sort_by_key(|entry| entry.as_ref().unwrap().file_name());
    let names: Vec<_> = names.into_iter().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["a.c", "keep.o"]);
}

/// Who calls, of the next request.
fn heard(heads: &Receiving<String>) -> String {
    values(&heads.recv_timeout(PATIENCE).unwrap(), "authorization").join(", ")
}

#[test]
fn who_calls_may_be_set_for_all_urls_and_what_is_given_for_one_comes_before_it() {
    let place = Place::new();
    let file = place.file("f", b"x");
    let certificate = place.file("ca.pem", self_signed(&["localhost"]).pem.as_bytes());
    let for_tls = format!("ca-cert = {certificate:?}\ntoken = \"t-SECRET\"");
    let (address, heads) = answering("401 Unauthorized");
    let (plain, with_user) = (format!("ws://{address}"), format!("ws://me:pw@{address}"));
    let token = place.file("token", b"of-file\n");
    let token = token.to_str().unwrap();
    for (text, url, flags, expected) in [
        ("token = \"t-SECRET\"", &plain, &[][..], "Bearer t-SECRET"),
        ("token = \"t-SECRET\"", &with_user, &[], "Basic bWU6cHc="),
        ("token = \"t-SECRET\"", &plain, &["-u", "me:pw"], "Basic bWU6cHc="),
        ("token = \"t-SECRET\"", &plain, &["--token-file", token], "Bearer of-file"),
        ("token = \"t-SECRET\"", &plain, &["-H", "Authorization: Own"], "Own"),
        ("header = [\"authorization: SECRET\"]", &plain, &["--token", "given"], "Bearer given"),
        // It is for TLS, which is not meant to be everywhere.
        (&for_tls, &plain, &[], "Bearer t-SECRET"),
    ] {
        let mut command = with_file(&place, text);
        let running = Running::start(command.arg("send").arg(&file).arg(url).args(flags));
        assert_eq!(heard(&heads), expected, "{text} {flags:?}");
        let ended = running.end();
        ended.assert_error(4, &["HTTP 401"]);
        assert!(!format!("{ended:?}").contains("SECRET"), "{ended:?}");
    }
    let mut both = with_file(&place, "token = \"t-SECRET\"\nheader = \"Authorization: SECRET\"");
    let ended = end(both.args(["send", "f"]).arg(&plain));
    ended.assert_error(
        2,
        &["token (", "config.toml:1) and an Authorization of header (", "both say who calls"],
    );
    assert!(!ended.errors.contains("SECRET"));
    for (text, variable) in [("token = 7\nuser = [\"SECRET\"]", None), ("", Some("SE\u{1}CRET"))] {
        let mut command = with_file(&place, text);
        command.args(["send", "f"]).arg(&plain).envs(variable.map(|value| ("WSFERRY_TOKEN", value)));
        let ended = end(&mut command);
        assert_eq!(ended.code(), 2, "{ended:?}");
        assert!(!ended.errors.contains("CRET"), "{ended:?}");
    }
    let ended = end(with_file(&place, "token = \"SECRET\"").arg("config").env("WSFERRY_USER", "me:SECRET"));
    let said = ended.lines.join("\n");
    assert!(said.contains("***") && !said.contains("SECRET"), "{said}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_measurement_hands_on_what_is_secret_unseen_and_nothing_that_was_not_asked_for() {
    let place = Place::new();
    // It takes a connection and says nothing: whoever dialled is there to be seen.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, heads) = answering("401 Unauthorized");
    let mut command = with_file(&place, "window = \"1MiB\"\n[send]\nquiet = true\nexclude = [\"*\"]\n");
    command.args(["bench", "--token", "t-SECRET", "-H", "X-Key: SECRET", "--runs=1", "--chunk-sizes=3KiB"]);
    command.args(["--size=1KiB", "--json"]).env("WSFERRY_NAME", "other");
    command.arg(format!("ws://{}", listener.local_addr().unwrap()));
    let bench = Running::start(&mut command);
    let (stream, _) = listener.accept().unwrap();
    let children = children(bench.pid());
    assert_eq!(children.len(), 1, "{children:?}");
    assert!(children[0].contains("send") && !children[0].contains("SECRET"), "{children:?}");
    drop((bench, stream));
    let mut command = with_file(&place, "token = \"t-SECRET\"\n[send]\nquiet = true\nexclude = [\"*\"]\n");
    command.args(["bench", "--runs=1", "--chunk-sizes=3KiB", "--size=1KiB", "--json"]);
    let bench = Running::start(command.arg(format!("ws://{address}")));
    assert_eq!(heard(&heads), "Bearer t-SECRET");
    let failed = bench.end().event("failed");
    assert!(failed["reason"].as_str().unwrap().contains("HTTP 401"), "{failed}");
}

/// The command lines of the processes that this one has started.
fn children(parent: u32) -> Vec<String> {
    let all = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let is_child = |path: &Path| {
        let stat = std::fs::read_to_string(path.join("stat")).unwrap_or_default();
        // Behind the name, which may hold anything, come the state and the parent.
        let parent_of = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1).map(str::to_owned));
        parent_of.is_some_and(|found| found == parent.to_string())
    };
    let command = |path: PathBuf| std::fs::read_to_string(path.join("cmdline")).unwrap_or_default();
    all.filter(|path| is_child(path)).map(command).collect()
}

#[test]
fn loopback_is_measured_whatever_is_set_for_urls() {
    let place = Place::new();
    let mut command =
        with_file(&place, "token = \"t\"\nname = \"other\"\n[receive]\nopen = true\nquiet = true\n");
    command.args(["bench", "--runs=1", "--chunk-sizes=48KiB", "--size=1MiB", "--json"]);
    let ended = end(command.arg("--dir").arg(place.path("")));
    assert_eq!(ended.code(), 0, "{ended:?}");
    end(wsferry().args(["bench", "--token=t"])).assert_error(2, &["--token says how a URL is dialled"]);
}

#[test]
fn a_receiver_takes_its_flags_from_the_file() {
    let place = Place::new();
    let mut command =
        with_file(&place, "[receive]\nlisten = \"127.0.0.1:0\"\njson = true\noverwrite = true\n");
    let receiver = Receiver::launch(command.arg("receive").arg(place.inbox()));
    for seed in [1, 2] {
        let file = place.file("f", &random(1000, seed));
        let _: Value = send_well(&file, &receiver.url, &[]);
    }
    assert!(place.received("f") == random(1000, 2));
}

#[test]
fn what_is_set_for_other_runs_spoils_none_that_has_no_use_for_it() {
    let place = Place::new();
    let receiver = Receiver::start(&place, &[]);
    let file = place.file("f", &random(1000, 1));
    let text = "once = true\n[receive]\nplain-limit = \"1MB\"\n[send]\nno-echo = true\nuntil = \"5s\"\n";
    let mut send = with_file(&place, text);
    send.env("WSFERRY_VIA", "false").env("WSFERRY_CERT", "/nowhere");
    // A certificate without its key is a mistake, wherever it stands.
    let refused = end(send.arg("send").arg(&file).arg(&receiver.url));
    refused.assert_error(2, &["--key"]);
    let sent = end(send.env_remove("WSFERRY_CERT"));
    assert_eq!(sent.code(), 0, "{sent:?}");
    let sent = end(send.env_remove("WSFERRY_VIA").env("WSFERRY_LISTEN", "127.0.0.1:0"));
    assert_eq!(sent.code(), 0, "{sent:?}");
    assert!(place.received("f") == random(1000, 1));
    // And the other way round, with all that sets.
    let inbox = place.path("other");
    let mut receive = with_file(&place, text);
    receive.arg("receive").arg(&inbox).args(["--json", "--listen", "127.0.0.1:0"]);
    let other = Receiver::launch(&mut receive);
    send_well(&file, &other.url, &[]);
    assert_eq!(other.running.end().code(), 0);
    assert!(std::fs::read(inbox.join("f")).unwrap() == random(1000, 1));
}
