//! Ends a process with all that it started: a shell runs most commands as processes of their own, which run on without it.
//!
//! A process group would do that at once, and is not used: one of its own is in the background of the terminal, where `ssh`
//! is stopped when it asks for a password; and this process's own group holds this process, and whoever started it. So it
//! is looked up who started whom.

use std::fs;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How often it is looked whether they have ended.
const LOOK: Duration = Duration::from_millis(5);

/// Asks a process, and what it started and what that did, to end, and after `patience` kills what is left. Those that the
/// system tells of (Linux); elsewhere the process alone.
///
/// The signal first: `ssh` that asks for a password puts the terminal in order on it.
pub(crate) fn end(child: &mut Child, patience: Duration) {
    let pid = Pid::from_child(child);
    let mut started = Vec::new();
    for signal in [Signal::TERM, Signal::KILL] {
        add_descendants(pid, &mut started);
        // The parent first, which would go on with the next command.
        if matches!(child.try_wait(), Ok(None)) {
            let _ = kill_process(pid, signal);
        }
        for process in started.iter().filter(|process| process.runs()) {
            let _ = kill_process(process.pid, signal);
        }
        let deadline = Instant::now() + patience;
        while matches!(child.try_wait(), Ok(None)) || started.iter().any(Process::runs) {
            if Instant::now() > deadline {
                break;
            }
            thread::sleep(LOOK);
        }
    }
}

/// A process. Its number alone may be another's by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: Pid,
    /// When it began, in the system's ticks.
    began: u64,
}

impl Process {
    /// Whether it has not ended.
    fn runs(&self) -> bool {
        look(self.pid).is_some_and(|(process, ..)| process == *self)
    }
}

/// Adds what `root` and those that are known have started.
fn add_descendants(root: Pid, known: &mut Vec<Process>) {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    let all: Vec<(Process, Option<Pid>)> = pids.filter_map(look).collect();
    let mut parents: Vec<Pid> = known.iter().filter(|process| process.runs()).map(|one| one.pid).collect();
    parents.push(root);
    while let Some(parent) = parents.pop() {
        for (process, _) in all.iter().filter(|(_, of)| *of == Some(parent)) {
            if !known.contains(process) {
                known.push(*process);
                parents.push(process.pid);
            }
        }
    }
}

/// A process that has not ended, and who started it.
fn look(pid: Pid) -> Option<(Process, Option<Pid>)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Its own name stands in brackets, and may hold some.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let has_ended = matches!(fields.next()?, "Z" | "X");
    let parent = Pid::from_raw(fields.next()?.parse().ok()?);
    // The 22nd of all, as proc_pid_stat(5) counts.
    let began = fields.nth(17)?.parse().ok()?;
    (!has_ended).then_some((Process { pid, began }, parent))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn what_a_process_started_ends_with_it_also_what_takes_no_signal() {
        let mut shell = Command::new("sh");
        // One that ends when it is asked to, below one that does not.
        shell.args([
            "-c",
            "sh -c 'trap \"\" TERM; sh -c \"trap - TERM; sleep 1000\"; sleep 1000' & echo $!; wait",
        ]);
        let mut child = shell.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let started = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
        let (process, parent) = look(started).unwrap();
        assert_eq!((process.runs(), parent), (true, Some(Pid::from_child(&child))));
        end(&mut child, Duration::from_millis(100));
        let (mut left, mut mine) = (Vec::new(), Vec::new());
        add_descendants(started, &mut left);
        add_descendants(Pid::from_child(&child), &mut mine);
        assert!(!process.runs() && left.is_empty() && mine.is_empty(), "{left:?} {mine:?}");
    }
}
