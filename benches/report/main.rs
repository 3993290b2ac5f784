//! The figures of REPORT.md: the release build as separate processes, beside the I/O floor, other programs and the
//! kernel's own rates, in turns.
//!
//! ```sh
//! cargo bench --bench report                       # prints all tables; takes about ten minutes
//! cargo bench --bench report -- throughput disk    # some of them
//! cargo bench --bench report -- --write            # and puts them into benches/REPORT.md
//! cargo bench --bench report -- disk --write       # one of them, which says on what machine then
//! cargo bench --bench report -- small              # beside rsync, without which it fails
//! ```
//!
//! `--test` runs everything once with tiny files: whether it works, not how fast.

mod echo_floor;
mod exercise;
mod growth;
mod long_path;
mod many;
mod process;
mod server;
mod small;
#[path = "../../src/cli/bench/spread.rs"]
mod spread;
mod throughput;
mod tls;
mod tree;

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use spread::Spread;

/// A table of the report.
pub struct Table {
    name: &'static str,
    /// What was done, in a sentence or two.
    intro: String,
    /// What, figure, ratio, aim.
    rows: Vec<[String; 4]>,
}

impl Table {
    pub fn new(name: &'static str, intro: impl Into<String>) -> Self {
        Self { name, intro: intro.into(), rows: Vec::new() }
    }

    pub fn row(&mut self, what: &str, figure: impl Into<String>, ratio: impl Into<String>, aim: &str) {
        self.rows.push([what.to_owned(), figure.into(), ratio.into(), aim.to_owned()]);
    }

    fn markdown(&self) -> String {
        let mut text = format!(
            "**{}.** {}\n\n| what | figure | ratio | aim |\n| --- | --- | --- | --- |\n",
            self.name, self.intro
        );
        for row in &self.rows {
            let _ = writeln!(text, "| {} |", row.join(" | "));
        }
        text
    }
}

/// The spread of what was measured at least once.
pub fn spread(figures: impl IntoIterator<Item = f64>) -> Spread {
    Spread::of(figures).expect("everything runs at least once")
}

impl Spread {
    /// As a rate of a file of this size, if the figures are seconds.
    pub fn rate(self, size: u64) -> String {
        let of = |seconds: f64| size as f64 / seconds / 1e6;
        if self.min == self.max {
            return format!("{:.0} MB/s", of(self.median));
        }
        format!("{:.0} MB/s ({:.0} to {:.0})", of(self.median), of(self.max), of(self.min))
    }

    /// As seconds.
    pub fn seconds(self) -> String {
        if self.min == self.max {
            return format!("{:.2} s", self.median);
        }
        format!("{:.2} s ({:.2} to {:.2})", self.median, self.min, self.max)
    }

    pub fn ratio(self) -> String {
        format!("{:.2} ({:.2} to {:.2})", self.median, self.min, self.max)
    }
}

/// How much to do.
pub struct Plan {
    /// Files are tiny, everything runs once.
    pub quick: bool,
    /// Where files are in memory, or at least temporary.
    pub memory: tempfile::TempDir,
    /// On a disk.
    pub disk: tempfile::TempDir,
}

impl Plan {
    fn new(quick: bool) -> Self {
        let shm = Path::new("/dev/shm");
        let memory = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
        let disk = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"));
        Self { quick, memory: memory.expect("a directory"), disk: disk.expect("a directory") }
    }

    /// A size, or a small one.
    pub fn size(&self, mib: u64) -> u64 {
        if self.quick { (mib << 20).min(2 << 20) } else { mib << 20 }
    }

    pub fn rounds(&self, rounds: usize) -> usize {
        if self.quick { 1 } else { rounds }
    }

    /// A random file in memory.
    pub fn source(&self, size: u64) -> PathBuf {
        let path = self.memory.path().join(format!("{size}.bin"));
        if !path.exists() {
            random(&path, size).expect("there is room for the file");
        }
        path
    }
}

/// Has the system hold free memory for a file of this size.
///
/// The host of a virtual machine takes back what has been free for a second or two, and a page that it has to give again
/// costs more than everything that a program does to it. Who comes behind a pause would pay for that, and nobody else.
pub fn have_memory_at_hand(size: u64) {
    drop(std::hint::black_box(vec![1u8; size as usize]));
}

fn random(path: &Path, size: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    let mut rng = fastrand::Rng::with_seed(size);
    let mut bytes = vec![0; 1 << 20];
    let mut left = size;
    while left > 0 {
        let now = left.min(bytes.len() as u64);
        rng.fill(&mut bytes[..now as usize]);
        file.write_all(&bytes[..now as usize])?;
        left -= now;
    }
    Ok(())
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("")
        .trim_start_matches([' ', '\t', ':']);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let congestion = read("/proc/sys/net/ipv4/tcp_congestion_control");
    // 9 is the kernel's choice; 11 is none, so that memory that was freed stays with this machine.
    let reporting = read("/sys/module/page_reporting/parameters/page_reporting_order");
    let reporting = match reporting.trim() {
        "" => String::new(),
        order => format!(", free pages given back to the host from order {order}"),
    };
    format!("{cores} cores of {model}, Linux {}, TCP {}{reporting}", kernel.trim(), congestion.trim())
}

type Measure = fn(&Plan) -> Table;

const TABLES: [(&str, Measure); 9] = [
    ("throughput", throughput::measure),
    ("exercise", exercise::measure),
    ("disk", throughput::disk),
    ("memory", growth::memory),
    ("path", long_path::measure),
    ("tls", tls::measure),
    ("small", small::measure),
    ("many", many::measure),
    ("growth", growth::measure),
];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    let chosen = |name: &str| TABLES.iter().all(|(name, _)| !has(name)) || has(name);
    // `cargo bench` says so; `cargo test --benches` does not, and wants to know whether it works.
    let plan = Plan::new(has("--test") || !has("--bench"));
    assert!(!has("--write") || !plan.quick, "--write goes with figures that mean something");
    let machine = format!("Measured on {}.", machine());
    println!("{machine}\n");
    if plan.quick {
        println!("Everything once, with tiny files: the figures mean nothing.\n");
    }
    let mut report = machine.clone() + "\n";
    let is_complete = TABLES.iter().all(|(name, _)| chosen(name));
    for (name, measure) in TABLES {
        if chosen(name) {
            let mut table = measure(&plan);
            if !is_complete {
                table.intro = format!("{} {machine}", table.intro);
            }
            println!("{}", table.markdown());
            let _ = write!(report, "\n{}", table.markdown());
            if has("--write") && !is_complete {
                edit(|before| with_table(before, &table)).expect("REPORT.md can be written");
            }
        }
    }
    if has("--write") && is_complete {
        edit(|_| report).expect("REPORT.md can be written");
    }
}

/// A report with this table in the place of the one that it has of that name; without one, as the first.
fn with_table(report: &str, table: &Table) -> String {
    let begins: Vec<usize> = report.match_indices("\n**").map(|(at, _)| at + 1).collect();
    let first = begins.first().copied().unwrap_or(report.len());
    let name = format!("**{}.**", table.name);
    let at = begins.iter().copied().find(|&at| report[at..].starts_with(&name));
    let end = match at {
        Some(at) => begins.iter().copied().find(|&begin| begin > at).unwrap_or(report.len()),
        None => first,
    };
    let (before, behind) = (&report[..at.unwrap_or(first)], &report[end..]);
    let space = if behind.is_empty() { "" } else { "\n" };
    format!("{before}{}{space}{behind}", table.markdown())
}

/// Changes what is between the report's marks.
fn edit(change: impl FnOnce(&str) -> String) -> io::Result<()> {
    const BEGIN: &str = "<!-- report: cargo bench --bench report -- --write -->\n\n";
    const END: &str = "\n<!-- end of report -->\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/REPORT.md");
    let readme = std::fs::read_to_string(&path)?;
    let (before, rest) = readme.split_once(BEGIN).expect("the report's beginning is marked");
    let (report, after) = rest.split_once(END).expect("the report's end is marked");
    std::fs::write(path, format!("{before}{BEGIN}{}{END}{after}", change(report)))
}
