//! What the tests share: data, the program's two sides as processes, a plain WebSocket peer.

mod peer;
mod process;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

pub use self::peer::{Peer, hello, message};
pub use self::process::{Ended, Process, Running, lines};

/// Longer than anything should take; a test that waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Seeded random bytes, never zeros alone: data that repeats would hide what is out of place.
pub fn random(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// A directory with an inbox, which the tests put files beside.
pub struct Place {
    dir: TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub fn inbox(&self) -> PathBuf {
        self.path("inbox")
    }

    pub fn received(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.inbox().join(name)).unwrap()
    }

    /// What is in the inbox.
    pub fn listing(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.inbox()).unwrap();
        let mut names: Vec<_> =
            entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

/// The program.
pub fn wsferry() -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("wsferry"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // What leads elsewhere, or says who calls, on the machine that runs the tests.
    for name in ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    // What the user of that machine has set of the program.
    let set = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in set.filter(|name| name.starts_with("WSFERRY_")) {
        command.env_remove(name);
    }
    command.env("WSFERRY_CONFIG", "");
    command
}

/// `wsferry receive --json` on a free port.
pub struct Receiver {
    pub running: Running,
    pub url: String,
}

impl Receiver {
    pub fn start(place: &Place, flags: &[&str]) -> Self {
        Self::start_on(place, "127.0.0.1:0", flags)
    }

    pub fn start_on(place: &Place, address: &str, flags: &[&str]) -> Self {
        let mut command = wsferry();
        command.arg("receive").arg(place.inbox()).args(["--json", "--listen", address]).args(flags);
        Self::launch(&mut command)
    }

    pub fn launch(command: &mut Command) -> Self {
        let running = Running::start(command);
        let listening = running.wait_for(|event| event["event"] == "listening");
        Self { url: listening["url"].as_str().unwrap().to_owned(), running }
    }

    pub fn address(&self) -> SocketAddr {
        self.url.strip_prefix("ws://").unwrap().parse().unwrap()
    }
}

/// `wsferry send --json FILE URL`, to its end.
pub fn send(file: &Path, url: &str, flags: &[&str]) -> Ended {
    Running::start(wsferry().arg("send").arg(file).arg(url).arg("--json").args(flags)).end()
}

/// Sends and expects success; gives the `finished` event.
pub fn send_well(file: &Path, url: &str, flags: &[&str]) -> Value {
    let ended = send(file, url, flags);
    assert_eq!(ended.code(), 0, "{ended:?}");
    ended.event("finished")
}
