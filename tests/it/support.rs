//! What the tests share: data, the program's two sides as processes, a plain WebSocket peer.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use async_tungstenite::tungstenite::handshake::server::{Request, Response};
use async_tungstenite::tungstenite::{self, Message as WsMessage, WebSocket, client::ClientRequestBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;
use wsferry::protocol::message::{self, Message};

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

/// A running program, whose standard output is read line by line. It is killed when dropped.
pub struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
    errors: Option<thread::JoinHandle<String>>,
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub lines: Vec<String>,
    pub errors: String,
}

impl Ended {
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// The events of this kind, of a program that ran with `--json`.
    pub fn events(&self, kind: &str) -> Vec<Value> {
        let events =
            self.lines.iter().map(|line| serde_json::from_str::<Value>(line).expect("each line is JSON"));
        events.filter(|event| event["event"] == kind).collect()
    }

    /// The last of them.
    pub fn event(&self, kind: &str) -> Value {
        self.events(kind).pop().unwrap_or_else(|| panic!("no {kind} event: {self:?}"))
    }

    /// Asserts the exit code, one line on standard error with these words, and no panic.
    pub fn assert_error(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code(), code, "{self:?}");
        let lines: Vec<&str> = self.errors.lines().filter(|line| line.starts_with("wsferry: ")).collect();
        assert_eq!(lines.len(), 1, "one line tells what happened: {self:?}");
        for word in words {
            assert!(lines[0].contains(word), "{word:?} is missing: {}", lines[0]);
        }
        assert!(!self.errors.contains("panicked"), "{}", self.errors);
    }
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let (tell, lines) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        let mut stderr = child.stderr.take().unwrap();
        let errors = thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        Self { child, lines, errors: Some(errors) }
    }

    /// The next line of output.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line of output in time")
    }

    /// Waits for an event that fits, of a program that runs with `--json`.
    pub fn wait_for(&self, fits: impl Fn(&Value) -> bool) -> Value {
        loop {
            let event: Value = serde_json::from_str(&self.line()).unwrap();
            if fits(&event) {
                return event;
            }
        }
    }

    /// An event that fits, if it comes so soon.
    pub fn try_wait_for(&self, time: Duration, fits: impl Fn(&Value) -> bool) -> Option<Value> {
        let deadline = Instant::now() + time;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event: Value = serde_json::from_str(&self.lines.recv_timeout(left).ok()?).unwrap();
            if fits(&event) {
                return Some(event);
            }
        }
    }

    /// The next event; `None` at the end of the output.
    pub fn try_event(&self) -> Option<Value> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(serde_json::from_str(&line).expect("each line is JSON")),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        }
    }

    /// Its standard input, if that was asked for.
    pub fn input(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("its standard input is a pipe")
    }

    /// Whether it has ended by itself, or was killed.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.pid().to_string()]).status().unwrap().success());
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end.
    pub fn end(self) -> Ended {
        self.end_within(PATIENCE)
    }

    /// Waits for the end, which may take so long.
    pub fn end_within(mut self, patience: Duration) -> Ended {
        let deadline = Instant::now() + patience;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(
                Instant::now() < deadline,
                "it does not end: {:?}",
                self.lines.try_iter().collect::<Vec<_>>()
            );
            thread::sleep(Duration::from_millis(2));
        };
        let errors = self.errors.take().unwrap().join().unwrap();
        Ended { status, lines: self.lines.iter().collect(), errors }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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

/// What a peer of the tests says first: it can all that there is, and has room for everything.
pub fn hello() -> Value {
    json!({
        "type": "hello", "features": ["zeros", "trees", "tree-digests", "late-size"], "frame_limit": 4_194_352,
        "window": 64 << 20, "offers": 4096,
    })
}

/// The message that a frame carries, if it carries one that came whole.
pub fn message(frame: &str) -> Option<Value> {
    // The prefix: kind and CRC-32, which is checked.
    frame.starts_with('M').then(|| Message::parse(frame.as_bytes()).expect("a message of ours"))?;
    Some(serde_json::from_str(&frame[11..]).expect("it was parsed a line ago"))
}

/// A WebSocket peer that says whatever a test wants.
pub struct Peer {
    pub socket: WebSocket<TcpStream>,
}

impl Peer {
    /// Dials, and says hello.
    pub fn dial(url: &str) -> Self {
        let mut peer = Self::dial_silently(url);
        peer.tell(&hello());
        peer
    }

    pub fn dial_silently(url: &str) -> Self {
        let stream = TcpStream::connect(url.strip_prefix("ws://").unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = ClientRequestBuilder::new(url.parse().unwrap()).with_sub_protocol("wsferry.v1");
        Self { socket: tungstenite::client(request, stream).unwrap().0 }
    }

    /// A receiver for the next sender that dials `listener`, which says hello with the usual fields but these.
    pub fn receive(listener: &TcpListener, fields: &Value) -> Self {
        let mut peer = Self::accept(listener, Some("wsferry.v1")).unwrap();
        let mut hello = hello();
        for (field, value) in fields.as_object().into_iter().flatten() {
            hello[field] = value.clone();
        }
        peer.tell(&hello);
        peer
    }

    /// The next one that dials `listener`, answered with this subprotocol or none; `None` if it does not like that.
    pub fn accept(listener: &TcpListener, subprotocol: Option<&'static str>) -> Option<Self> {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        #[allow(clippy::result_large_err)]
        let answer = |_: &Request, mut response: Response| {
            if let Some(subprotocol) = subprotocol {
                response.headers_mut().insert("Sec-WebSocket-Protocol", subprotocol.parse().unwrap());
            }
            Ok(response)
        };
        Some(Self { socket: tungstenite::accept_hdr(stream, answer).ok()? })
    }

    /// Sends a frame as it is.
    pub fn say(&mut self, text: impl Into<String>) {
        // The peer may have hung up already; what it said is what the tests look at.
        let _ = self.socket.send(WsMessage::text(text.into()));
    }

    /// Sends a message.
    pub fn tell(&mut self, message: &Value) {
        self.say(message::frame_of(&message.to_string()));
    }

    /// The next text; `None` when the connection has ended.
    pub fn hear(&mut self) -> Option<String> {
        loop {
            match self.socket.read() {
                Ok(WsMessage::Text(text)) => return Some(text.to_string()),
                Ok(WsMessage::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The next text, if it comes so soon.
    pub fn hear_within(&mut self, time: Duration) -> Option<String> {
        self.socket.get_mut().set_read_timeout(Some(time)).unwrap();
        let text = self.hear();
        self.socket.get_mut().set_read_timeout(Some(PATIENCE)).unwrap();
        text
    }

    /// The next message of this type, past all others.
    pub fn hear_type(&mut self, kind: &str) -> Value {
        loop {
            let text = self.hear().unwrap_or_else(|| panic!("the connection ended before a {kind}"));
            if let Some(message) = message(&text)
                && message["type"] == kind
            {
                return message;
            }
        }
    }
}
