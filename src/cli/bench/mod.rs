//! `wsferry bench`: which chunk size, measured with the real program as two processes, over real sockets and files.

mod plot;
mod run;
mod setting;
mod spread;

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use serde_json::{Value, json};
use wsferry::protocol::DEFAULT_WINDOW;
use wsferry::transfer::Shutdown;
use wsferry::transport::mask_url;

use self::run::{Files, Sample};
use self::setting::{Setting, settings};
use self::spread::Spread;
use super::args::BenchArgs;
use super::exit::Exit;
use super::output::{Mode, Output};
use super::progress;
use super::signals::{self, Hangup};
use super::words;

/// The size over loopback, and over a real path.
const SIZE: u64 = 1 << 30;
const SIZE_WITH_URL: u64 = 32 << 20;
/// A chunk that is within this part of the fastest is as good, and the smaller the better: for a gateway, for memory,
/// and for what a cut costs.
const AS_GOOD: f64 = 0.97;

/// A setting and what its runs gave.
struct Row {
    setting: Setting,
    samples: Vec<Sample>,
}

/// Everything that was measured.
struct Report {
    size: u64,
    runs: u32,
    /// Where the bytes went: for titles.
    path: String,
    /// Bytes a second of the I/O floor, before each round of runs; none on a path that is not this machine's
    /// loopback.
    floors: Vec<f64>,
    rows: Vec<Row>,
}

impl Row {
    /// Bytes of the file a second.
    fn rate(&self, size: u64) -> Spread {
        let rates = self.samples.iter().map(|sample| size as f64 / sample.seconds);
        Spread::of(rates).expect("every setting is run at least once")
    }

    /// The median of something that is not known everywhere.
    fn median(&self, figure: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        Spread::of(self.samples.iter().filter_map(figure)).map(|spread| spread.median)
    }
}

impl Report {
    /// The setting to use: the smallest chunk, then the smallest window, that is as good as the fastest.
    fn recommended(&self) -> Option<&Row> {
        let rate = |row: &Row| row.rate(self.size).median;
        let best = self.rows.iter().map(rate).fold(0.0, f64::max);
        let good = self.rows.iter().filter(|row| rate(row) >= AS_GOOD * best);
        good.min_by_key(|row| (row.setting.chunk, row.setting.window))
    }

    /// Bytes a second of the I/O floor.
    fn floor(&self) -> Option<Spread> {
        Spread::of(self.floors.iter().copied())
    }

    /// A setting's rate as a part of the floor of the same round: what slows the machine for a while slows both.
    fn of_floor(&self, row: &Row) -> Option<f64> {
        let rates = row.samples.iter().map(|sample| self.size as f64 / sample.seconds);
        Spread::of(rates.zip(&self.floors).map(|(rate, floor)| rate / floor)).map(|ratio| ratio.median)
    }

    /// CPU seconds for a GB of the file: the sender's, the receiver's.
    fn cpu(&self, row: &Row) -> (Option<f64>, Option<f64>) {
        let per_gb = 1e9 / self.size as f64;
        (
            row.median(|sample| Some(sample.sender.cpu_seconds * per_gb)),
            row.median(|sample| Some(sample.receiver.as_ref()?.cpu_seconds * per_gb)),
        )
    }

    /// Bytes on the wire, both ways, beyond the file's own, in percent of these. Base64 alone makes 33.33.
    fn overhead(&self, row: &Row) -> f64 {
        let wire = row.median(|sample| Some(sample.wire_bytes as f64)).unwrap_or_default();
        (wire / self.size.max(1) as f64 - 1.0) * 100.0
    }

    /// The larger side's peak memory, in bytes.
    fn memory(row: &Row) -> Option<f64> {
        row.median(|sample| {
            let receiver = sample.receiver.as_ref().and_then(|usage| usage.peak_memory);
            Some(sample.sender.peak_memory?.max(receiver.unwrap_or(0)) as f64)
        })
    }

    fn table(&self) -> String {
        let mut lines = vec![format!(
            "{:>10} {:>9} {:>11} {:>22} {:>8} {:>12} {:>8} {:>8}",
            "chunk", "window", "rate", "from, to", "of floor", "CPU s/GB", "wire", "memory"
        )];
        for row in &self.rows {
            let rate = row.rate(self.size);
            let of_floor = self.of_floor(row).map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
            let cpu = match self.cpu(row) {
                (Some(sender), Some(receiver)) => format!("{sender:.2} + {receiver:.2}"),
                (Some(sender), None) => format!("{sender:.2}"),
                _ => "-".to_owned(),
            };
            let memory =
                Self::memory(row).map_or("-".to_owned(), |bytes| format!("{:.1} MiB", bytes / 1048576.0));
            lines.push(format!(
                "{:>10} {:>9} {:>11} {:>22} {of_floor:>8} {cpu:>12} {:>8} {memory:>8}",
                size(row.setting.chunk.raw()),
                size(row.setting.window),
                per_second(rate.median),
                format!("{}, {}", per_second(rate.min), per_second(rate.max)),
                format!("+{:.2}%", self.overhead(row)),
            ));
        }
        lines.join("\n")
    }

    fn title(&self) -> String {
        let runs = if self.runs == 1 { "1 run".to_owned() } else { format!("medians of {} runs", self.runs) };
        format!("{} {}, {runs}", words::size(self.size), self.path)
    }

    fn json(&self, row: &Row) -> Value {
        let rate = row.rate(self.size);
        let (sender, receiver) = self.cpu(row);
        json!({
            "event": "measured", "chunk_size": row.setting.chunk.raw(), "window": row.setting.window,
            "bytes_per_second": rate.median, "slowest": rate.min, "fastest": rate.max, "runs": self.runs,
            "of_floor": self.of_floor(row),
            "sender_cpu_seconds_per_gb": sender, "receiver_cpu_seconds_per_gb": receiver,
            "wire_overhead_percent": self.overhead(row), "peak_memory": Self::memory(row).map(|bytes| bytes as u64),
        })
    }
}

pub fn run(args: BenchArgs, output: &Output) -> Exit {
    let settings = match settings(&args, output) {
        Ok(settings) => settings,
        Err(usage) => return output.error(&usage, Exit::Usage),
    };
    let (shutdown, signalled) = match signals::watch(Hangup::Stops, None, output) {
        Ok(watch) => watch,
        Err(error) => return output.error(&format_args!("cannot watch for signals: {error}"), Exit::Failed),
    };
    match measure(&args, &settings, shutdown, output).and_then(|report| tell(&args, &report, output)) {
        Ok(()) => Exit::Done,
        Err(run::Error::Stopped) => output.error(&"stopped", signalled.exit()),
        Err(run::Error::Failed { why, exit }) => output.error(&why, exit),
    }
}

/// Runs every setting as often as asked for, in turns: what the machine does meanwhile hits all of them alike.
fn measure(
    args: &BenchArgs,
    settings: &[Setting],
    mut stop: Shutdown,
    output: &Output,
) -> Result<Report, run::Error> {
    // Over loopback it arrives beside itself.
    let (default, copies) = if args.url.is_some() { (SIZE_WITH_URL, 1) } else { (SIZE, 2) };
    let size = args.size.map_or(default, |size| size.as_u64());
    for path in args.svg.iter().chain(&args.html) {
        // Said now and not when all is measured.
        let there = path.exists();
        OpenOptions::new().append(true).create(true).open(path).map_err(cannot_write(path))?;
        if !there {
            let _ = std::fs::remove_file(path);
        }
    }
    let files = Files::make(args.dir.as_deref(), size, copies, &mut stop)?;
    let path = match &args.url {
        Some(url) => format!("to {}", mask_url(url)),
        None => format!("over loopback, files in {}", files.place()),
    };
    let bar = (output.mode == Mode::Human && !output.bars.is_hidden()).then(|| {
        let all = size.saturating_mul(settings.len() as u64).saturating_mul(args.runs.into());
        output
            .bars
            .add(ProgressBar::new(all).with_style(progress::style("{wide_bar} {percent}% {eta} left  {msg}")))
    });
    let mut rows: Vec<Row> = settings.iter().map(|&setting| Row { setting, samples: Vec::new() }).collect();
    let mut floors = Vec::new();
    let mut done = 0;
    let measured = (|| {
        for _ in 0..args.runs {
            if args.url.is_none() {
                if let Some(bar) = &bar {
                    bar.set_message("the I/O floor");
                }
                floors.push(size as f64 / run::floor(&files, &mut stop)?.as_secs_f64());
            }
            for row in &mut rows {
                let Setting { chunk, window } = row.setting;
                let message = format!("chunk {}, window {}", self::size(chunk.raw()), self::size(window));
                let mut moved = |bytes| {
                    if let Some(bar) = &bar {
                        bar.set_position(done + bytes);
                    }
                };
                if let Some(bar) = &bar {
                    bar.set_message(message);
                }
                row.samples.push(run::once(args, &files, row.setting, &mut stop, &mut moved)?);
                done += size;
            }
        }
        Ok(())
    })();
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    measured?;
    Ok(Report { size, runs: args.runs, path, floors, rows })
}

fn tell(args: &BenchArgs, report: &Report, output: &Output) -> Result<(), run::Error> {
    output.line(&report.title());
    if let Some(floor) = report.floor() {
        output.event(json!({
            "event": "floor", "bytes_per_second": floor.median, "slowest": floor.min, "fastest": floor.max,
        }));
        output.line(&format!(
            "the I/O floor, file to TCP to file with nothing else done: {} ({} to {})",
            per_second(floor.median),
            per_second(floor.min),
            per_second(floor.max)
        ));
    }
    report.table().lines().for_each(|line| output.line(line));
    for row in &report.rows {
        output.event(report.json(row));
    }
    if let Some(row) = report.recommended() {
        let command = command(args, row.setting);
        output.event(json!({
            "event": "recommended", "chunk_size": row.setting.chunk.raw(), "window": row.setting.window,
            "command": command,
        }));
        output.line(&format!(
            "the smallest chunk within 3% of the fastest is {}:",
            size(row.setting.chunk.raw())
        ));
        output.line(&format!("  {command}"));
    }
    if let Some(path) = &args.svg {
        std::fs::write(path, plot::svg(report)).map_err(cannot_write(path))?;
    }
    if let Some(path) = &args.html {
        std::fs::write(path, plot::html(report)).map_err(cannot_write(path))?;
    }
    let written: Vec<&PathBuf> = args.svg.iter().chain(&args.html).collect();
    for path in written {
        output.notice(&format!("the plot is in {}", path.display()));
    }
    Ok(())
}

fn cannot_write(path: &Path) -> impl FnOnce(io::Error) -> run::Error {
    move |error| run::Error::failed(format!("cannot write {}: {error}", path.display()))
}

/// The command line that uses a setting; what says who calls is not in it.
fn command(args: &BenchArgs, setting: Setting) -> String {
    let url = args.url.as_deref().map_or("URL".into(), mask_url);
    let mut command = format!("wsferry send FILE {url} --chunk-size {}", size(setting.chunk.raw()));
    // A profile may have a window of its own.
    let profile = args.dial.profile();
    if args.windows.len() > 1 || setting.window != DEFAULT_WINDOW || profile.is_some() {
        command.push_str(&format!(" --window {}", size(setting.window)));
    }
    if let Some(limit) = args.frame_limit {
        command.push_str(&format!(" --frame-limit {}", size(limit.as_u64())));
    }
    if let Some(profile) = profile {
        command.push_str(&format!(" --profile {profile}"));
    }
    command
}

/// A size as the flags take it: exact.
fn size(bytes: u64) -> String {
    match bytes {
        0 => "0B".to_owned(),
        bytes if bytes % (1 << 30) == 0 => format!("{}GiB", bytes >> 30),
        bytes if bytes % (1 << 20) == 0 => format!("{}MiB", bytes >> 20),
        bytes if bytes % (1 << 10) == 0 => format!("{}KiB", bytes >> 10),
        bytes => format!("{bytes}B"),
    }
}

/// A rate with three digits or so: more would be noise.
fn per_second(bytes: f64) -> String {
    match bytes {
        1e9.. => format!("{:.2} GB/s", bytes / 1e9),
        1e7.. => format!("{:.0} MB/s", bytes / 1e6),
        1e6.. => format!("{:.1} MB/s", bytes / 1e6),
        _ => format!("{:.1} kB/s", bytes / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytesize::ByteSize;
    use wsferry::protocol::ChunkSize;

    #[test]
    fn the_spread_of_figures_is_their_middle_and_their_ends() {
        assert!(Spread::of([]).is_none());
        for (figures, median) in [(&[3.0][..], 3.0), (&[9.0, 1.0, 2.0], 2.0), (&[4.0, 1.0, 2.0, 9.0], 3.0)] {
            let spread = Spread::of(figures.iter().copied()).unwrap();
            assert_eq!(spread.median, median);
            assert!(figures.iter().all(|figure| (spread.min..=spread.max).contains(figure)));
        }
    }

    #[test]
    fn the_smallest_chunk_that_is_as_good_as_the_fastest_is_recommended() {
        let row = |chunk, seconds: &[f64]| Row {
            setting: Setting { chunk: ChunkSize::at_most(chunk).unwrap(), window: 1 },
            samples: seconds.iter().map(|&seconds| Sample { seconds, ..Sample::default() }).collect(),
        };
        let rows = vec![row(300, &[2.0]), row(3000, &[1.02, 1.01, 7.0]), row(30_000, &[1.0, 1.0, 1.0])];
        let report = Report { size: 1000, runs: 3, path: String::new(), floors: vec![], rows };
        assert_eq!(report.recommended().unwrap().setting.chunk.raw(), 3000);
    }

    #[test]
    fn sizes_are_told_as_the_flags_take_them() {
        for (bytes, text) in
            [(24_546, "24546B"), (192 << 10, "192KiB"), (3 << 20, "3MiB"), (5 << 30, "5GiB"), (0, "0B")]
        {
            assert_eq!(size(bytes), text);
            assert_eq!(text.parse::<ByteSize>().unwrap().as_u64(), bytes);
        }
    }
}
