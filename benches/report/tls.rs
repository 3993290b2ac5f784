//! How much TLS costs: wsferry's own, and stunnel in front of both ends.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::process::{self, Receiver};
use super::{Plan, Table, have_memory_at_hand, spread};

pub fn measure(plan: &Plan) -> Table {
    let size = plan.size(1024);
    let rounds = plan.rounds(11);
    let (source, inbox) = (plan.source(size), plan.memory.path().join("inbox"));
    let pem = Pem::new(plan.memory.path());
    let stunnel = process::is_there(Command::new("stunnel").arg("-version"));
    let (mut plain, mut ours, mut theirs, mut memory) = (vec![], vec![], vec![], 0u64);
    for _ in 0..rounds {
        have_memory_at_hand(size);
        plain.push(process::transfer(&source, &inbox, &[]).seconds);
        have_memory_at_hand(size);
        let (seconds, peak) = over_tls(&source, &inbox, &pem);
        ours.push(seconds);
        memory = memory.max(peak);
        if stunnel {
            have_memory_at_hand(size);
            theirs.push(over_stunnel(&source, &inbox, &pem));
        }
    }
    let against =
        |base: &[f64], others: &[f64]| spread(base.iter().zip(others).map(|(base, other)| base / other));
    let mut table = Table::new(
        "TLS",
        format!("1 GiB of random bytes from memory to memory over loopback, in turns, {rounds} times."),
    );
    table.row("`ws://`", spread(plain.iter().copied()).rate(size), "1", "");
    table.row(
        "`wss://`",
        spread(ours.iter().copied()).rate(size),
        format!("{} of ws://", against(&plain, &ours).ratio()),
        "0.60",
    );
    if stunnel {
        table.row(
            "stunnel in front of both ends",
            spread(theirs.iter().copied()).rate(size),
            format!("wss:// is {} times as fast", against(&theirs, &ours).ratio()),
            "1",
        );
    } else {
        table.row("stunnel in front of both ends", "not measured: `apt-get install stunnel4`", "", "1");
    }
    let mib = memory as f64 / f64::from(1 << 20);
    table.row("peak memory of the larger side, `wss://`", format!("{mib:.1} MiB"), "", "48 MiB");
    table
}

/// A certificate for loopback and its key, as files.
struct Pem {
    certificate: PathBuf,
    key: PathBuf,
}

impl Pem {
    fn new(dir: &Path) -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
        let (certificate, key) = (dir.join("certificate.pem"), dir.join("key.pem"));
        std::fs::write(&certificate, made.cert.pem()).expect("it can be written");
        std::fs::write(&key, made.signing_key.serialize_pem()).expect("it can be written");
        Self { certificate, key }
    }

    fn paths(&self) -> (&str, &str) {
        (self.certificate.to_str().expect("UTF-8"), self.key.to_str().expect("UTF-8"))
    }
}

/// The seconds it took, and the most memory that either side had.
fn over_tls(source: &Path, inbox: &Path, pem: &Pem) -> (f64, u64) {
    let (certificate, key) = pem.paths();
    let mut receiver = Receiver::start(inbox, &["--tls-cert", certificate, "--tls-key", key]);
    let (seconds, sender) = process::send(source, &receiver.url(), &["--ca-cert", certificate]);
    assert_eq!(sender["blake3"], receiver.finished()["blake3"]);
    let peak = sender["peak_memory"].as_u64().expect("a number").max(receiver.usage().0);
    (seconds, peak)
}

/// The same with a stunnel at each end that speaks TLS for it.
fn over_stunnel(source: &Path, inbox: &Path, pem: &Pem) -> f64 {
    let mut receiver = Receiver::start(inbox, &[]);
    let (certificate, key) = pem.paths();
    let server = Stunnel::start(&format!("cert = {certificate}\nkey = {key}\n"), &receiver.address);
    let client = format!("client = yes\nverifyChain = yes\nCAfile = {certificate}\n");
    let client = Stunnel::start(&client, &server.address);
    let (seconds, sender) = process::send(source, &format!("ws://{}", client.address), &[]);
    assert_eq!(sender["blake3"], receiver.finished()["blake3"]);
    seconds
}

/// A stunnel; killed when dropped.
struct Stunnel {
    child: Child,
    address: String,
    _config: tempfile::NamedTempFile,
}

impl Stunnel {
    fn start(options: &str, target: &str) -> Self {
        let port = process::free_port();
        let config = tempfile::NamedTempFile::new().expect("a file");
        let text = format!(
            "foreground = yes\npid =\ndebug = err\n[way]\n{options}accept = 127.0.0.1:{port}\nconnect = {target}\n\
             TIMEOUTclose = 0\n"
        );
        std::fs::write(config.path(), text).expect("it can be written");
        let mut command = Command::new("stunnel");
        command.arg(config.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("it starts");
        process::wait_for_listener(port);
        Self { child, address: format!("127.0.0.1:{port}"), _config: config }
    }
}

impl Drop for Stunnel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
