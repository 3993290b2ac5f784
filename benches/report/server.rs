//! What receives a directory: `wsferry receive`, or rsync's daemon.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, getegid, geteuid, kill_process};

use super::process::{free_port, rsync, wait_for_listener, wsferry};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Rsync,
    Wsferry,
}

impl Kind {
    pub const BOTH: [Self; 2] = [Self::Rsync, Self::Wsferry];
}

/// A receiver that runs; ended, and what it received removed, when dropped.
pub struct Server {
    child: Child,
    pub kind: Kind,
    pub port: u16,
    directory: PathBuf,
    /// What the daemon is told.
    _config: Option<tempfile::NamedTempFile>,
}

impl Server {
    /// Receives into an empty directory.
    pub fn start(kind: Kind, directory: &Path) -> Self {
        let _ = std::fs::remove_dir_all(directory);
        std::fs::create_dir(directory).expect("it can be made");
        let port = free_port();
        let (mut command, config) = match kind {
            Kind::Wsferry => {
                let mut command = wsferry();
                command.args(["receive", "--quiet", "--listen"]).arg(format!("127.0.0.1:{port}"));
                command.arg(directory);
                (command, None)
            }
            Kind::Rsync => {
                let config = tempfile::NamedTempFile::new().expect("a file");
                std::fs::write(config.path(), configuration(directory)).expect("it can be written");
                let mut command = rsync();
                command.args(["--daemon", "--no-detach", "--address=127.0.0.1", "--log-file=/dev/null"]);
                command.arg(format!("--port={port}")).arg("--config").arg(config.path());
                (command, Some(config))
            }
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("it starts");
        wait_for_listener(port);
        Self { child, kind, port, directory: directory.to_owned(), _config: config }
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Asked, not killed: the daemon takes those with it that it has started.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// As fast as it goes: it asks nobody what its client is called.
fn configuration(directory: &Path) -> String {
    format!(
        "use chroot = no\nreverse lookup = no\nuid = {}\ngid = {}\n[arrived]\npath = {}\nread only = no\n",
        geteuid().as_raw(),
        getegid().as_raw(),
        directory.display()
    )
}
