//! The exercise with other people's libraries, both ways: Autobahn, `websockets`, Node's `ws`.
//!
//! `.ci/run` installs them and says where in `WSFERRY_INTEROP`; by hand:
//!
//! ```sh
//! export WSFERRY_INTEROP=$(mktemp -d)
//! .ci/interop "$WSFERRY_INTEROP"
//! cargo test --release --test it -- --ignored interop
//! ```

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{Place, Receiver, Running, random, send};

const WAYS: [&str; 2] = ["frame", "fragments"];

/// A library's script, with everything but the role's arguments.
fn script(library: &str) -> Command {
    let place = std::env::var_os("WSFERRY_INTEROP").expect(
        "WSFERRY_INTEROP is not set: it names a directory with the libraries; see the README's section on tests",
    );
    let place = PathBuf::from(place);
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop");
    let mut command;
    if library == "ws" {
        command = Command::new("node");
        command.env("NODE_PATH", place.join("node_modules")).arg(scripts.join("exercise.cjs"));
    } else {
        command = Command::new(place.join("bin/python"));
        command.arg(scripts.join("exercise.py")).arg(library);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn exercise(library: &str) {
    let place = Place::new();
    let receiver = Receiver::start(&place, &["--plain"]);
    let picture = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/ferry.png")).unwrap();
    for (name, bytes) in [("ferry.png", picture), ("random", random(32 << 20, 32))] {
        let file = place.file(name, &bytes);
        for way in WAYS {
            let url = format!("{}/{way}-{name}", receiver.url);
            let mut client = script(library);
            client.args(["client", &url]).arg(&file).arg(way);
            let ended = Running::start(&mut client).end();
            assert_eq!(ended.code(), 0, "{library} {name} {way}: {ended:?}");
            assert!(place.received(&format!("{way}-{name}")) == bytes, "{library} {name} {way}");
        }
        for (way, flags) in
            [("frame", &["--plain"][..]), ("fragments", &["--plain"]), ("frame", &["--plain", "--one-frame"])]
        {
            let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let target = place.path("saved");
            let mut server = script(library);
            server.args(["server", &port.to_string()]).arg(&target).arg(way);
            let server = Running::start(&mut server);
            assert_eq!(server.line(), "ready");
            let sent = send(&file, &format!("ws://127.0.0.1:{port}"), flags);
            assert_eq!(sent.code(), 0, "{library} {name} {way} {flags:?}: {sent:?}");
            let ended = server.end();
            assert_eq!(ended.code(), 0, "{library} {name} {way} {flags:?}: {ended:?}");
            assert!(std::fs::read(&target).unwrap() == bytes, "{library} {name} {way} {flags:?}");
        }
    }
}

#[test]
#[ignore = "needs Python and Autobahn"]
fn the_exercise_with_autobahn_as_client_and_as_server() {
    exercise("autobahn");
}

#[test]
#[ignore = "needs Python and websockets"]
fn the_exercise_with_websockets_as_client_and_as_server() {
    exercise("websockets");
}

#[test]
#[ignore = "needs Node and ws"]
fn the_exercise_with_ws_as_client_and_as_server() {
    exercise("ws");
}
