//! What was measured, and what follows from it.

use super::run::Sample;
use super::setting::Setting;
use super::spread::Spread;
use crate::cli::event::JsonEvent;
use crate::cli::words;

/// A chunk that is within this part of the fastest is as good, and the smaller the better: for a gateway, for memory,
/// and for what a cut costs.
const AS_GOOD: f64 = 0.97;

/// A column of the table, wherever it is shown.
pub struct Column {
    pub head: &'static str,
    width: usize,
    /// `None` if it is not known.
    cell: fn(&Report, &Row) -> Option<String>,
}

/// The table's columns.
pub const COLUMNS: [Column; 8] = [
    Column { head: "chunk", width: 10, cell: |_, row| Some(size(row.setting.chunk.raw())) },
    Column { head: "window", width: 9, cell: |_, row| Some(size(row.setting.window)) },
    Column { head: "rate", width: 11, cell: |report, row| Some(per_second(row.rate(report.size).median)) },
    Column {
        head: "from, to",
        width: 22,
        cell: |report, row| {
            let rate = row.rate(report.size);
            Some(format!("{}, {}", per_second(rate.min), per_second(rate.max)))
        },
    },
    Column {
        head: "of floor",
        width: 8,
        cell: |report, row| report.of_floor(row).map(|ratio| format!("{ratio:.2}")),
    },
    Column {
        head: "CPU s/GB",
        width: 12,
        cell: |report, row| match report.cpu(row) {
            (Some(sender), Some(receiver)) => Some(format!("{sender:.2} + {receiver:.2}")),
            (sender, _) => sender.map(|sender| format!("{sender:.2}")),
        },
    },
    Column { head: "wire", width: 8, cell: |report, row| Some(format!("+{:.2}%", report.overhead(row))) },
    Column {
        head: "memory",
        width: 8,
        cell: |_, row| Report::memory(row).map(|bytes| words::size(bytes as u64)),
    },
];

/// What the columns mean that are not plain.
pub const LEGEND: &str =
    "of floor: each run beside the I/O floor measured just before it, their median; CPU: sender + receiver";

/// A setting and what its runs gave.
pub struct Row {
    pub setting: Setting,
    pub samples: Vec<Sample>,
}

/// Everything that was measured.
#[derive(Default)]
pub struct Report {
    pub size: u64,
    /// How often each setting was to be run.
    pub runs: u32,
    /// Where the bytes went: for titles.
    pub path: String,
    /// Bytes a second of the I/O floor, before each round of runs; none on a path that is not this machine's
    /// loopback.
    pub floors: Vec<f64>,
    pub rows: Vec<Row>,
}

impl Row {
    /// Bytes of the file a second.
    pub fn rate(&self, size: u64) -> Spread {
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
    pub fn recommended(&self) -> Option<&Row> {
        let rate = |row: &Row| row.rate(self.size).median;
        let best = self.rows.iter().map(rate).fold(0.0, f64::max);
        let good = self.rows.iter().filter(|row| rate(row) >= AS_GOOD * best);
        good.min_by_key(|row| (row.setting.chunk, row.setting.window))
    }

    /// Bytes a second of the I/O floor.
    pub fn floor(&self) -> Option<Spread> {
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

    /// Whether the settings differ by more than the runs of one of them do; without that the choice means nothing. `None` if
    /// one run cannot tell.
    pub fn is_clear(&self) -> Option<bool> {
        if self.rows.len() < 2 || self.rows.iter().any(|row| row.samples.len() < 2) {
            return None;
        }
        let rates = || self.rows.iter().map(|row| row.rate(self.size));
        let noise = Spread::of(rates().map(|rate| (rate.max - rate.min) / rate.median))?.median;
        let medians = Spread::of(rates().map(|rate| rate.median))?;
        Some(noise < 1.0 - medians.min / medians.max)
    }

    /// What is to be said of the choice, if it is in doubt.
    pub fn doubt(&self) -> Option<&'static str> {
        match self.is_clear() {
            Some(true) => None,
            Some(false) => Some(
                "the runs of one setting differ by more than the settings do, so this choice means little: measure \
                 again while nothing else runs, or with more --runs",
            ),
            None if self.rows.len() < 2 => None,
            None => Some("one run does not tell how much the rates differ by themselves: --runs 3 does"),
        }
    }

    /// The table as lines of text.
    pub fn table(&self) -> Vec<String> {
        let line = |cells: [String; COLUMNS.len()]| {
            let cells = cells
                .into_iter()
                .zip(COLUMNS)
                .map(|(cell, column)| format!("{cell:>width$}", width = column.width));
            cells.collect::<Vec<_>>().join(" ")
        };
        let head = line(COLUMNS.map(|column| column.head.to_owned()));
        let rows = self.rows.iter().map(|row| line(self.cells(row)));
        std::iter::once(head).chain(rows).collect()
    }

    /// What stands in each column.
    pub fn cells(&self, row: &Row) -> [String; COLUMNS.len()] {
        COLUMNS.map(|column| (column.cell)(self, row).unwrap_or_else(|| "-".to_owned()))
    }

    pub fn title(&self) -> String {
        let runs = if self.runs == 1 { "1 run".to_owned() } else { format!("medians of {} runs", self.runs) };
        format!("{} {}, {runs}", words::size(self.size), self.path)
    }

    pub fn event(&self, row: &Row) -> JsonEvent {
        let rate = row.rate(self.size);
        let (sender, receiver) = self.cpu(row);
        JsonEvent::Measured {
            chunk_size: row.setting.chunk.raw(),
            window: row.setting.window,
            bytes_per_second: rate.median,
            slowest: rate.min,
            fastest: rate.max,
            runs: self.runs,
            of_floor: self.of_floor(row),
            sender_cpu_seconds_per_gb: sender,
            receiver_cpu_seconds_per_gb: receiver,
            wire_overhead_percent: self.overhead(row),
            peak_memory: Self::memory(row).map(|bytes| bytes as u64),
        }
    }
}

/// A size as the flags take it: exact.
pub fn size(bytes: u64) -> String {
    match bytes {
        0 => "0B".to_owned(),
        bytes if bytes % (1 << 30) == 0 => format!("{}GiB", bytes >> 30),
        bytes if bytes % (1 << 20) == 0 => format!("{}MiB", bytes >> 20),
        bytes if bytes % (1 << 10) == 0 => format!("{}KiB", bytes >> 10),
        bytes => format!("{bytes}B"),
    }
}

/// A rate with three digits or so: more would be noise.
pub fn per_second(bytes: f64) -> String {
    match bytes {
        1e9.. => format!("{:.2} GB/s", bytes / 1e9),
        1e7.. => format!("{:.0} MB/s", bytes / 1e6),
        1e6.. => format!("{:.1} MB/s", bytes / 1e6),
        _ => format!("{:.1} kB/s", bytes / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use bytesize::ByteSize;
    use wsferry::protocol::ChunkSize;

    use super::*;

    #[test]
    fn the_spread_of_figures_is_their_middle_and_their_ends() {
        assert!(Spread::of([]).is_none());
        for (figures, median) in [(&[3.0][..], 3.0), (&[9.0, 1.0, 2.0], 2.0), (&[4.0, 1.0, 2.0, 9.0], 3.0)] {
            let spread = Spread::of(figures.iter().copied()).unwrap();
            assert_eq!(spread.median, median);
            assert!(figures.iter().all(|figure| (spread.min..=spread.max).contains(figure)));
        }
    }

    fn row(chunk: u64, seconds: &[f64]) -> Row {
        Row {
            setting: Setting { chunk: ChunkSize::at_most(chunk).unwrap(), window: 1 },
            samples: seconds.iter().map(|&seconds| Sample { seconds, ..Sample::default() }).collect(),
        }
    }

    fn report(rows: Vec<Row>) -> Report {
        Report { size: 1000, runs: 3, path: String::new(), floors: vec![], rows }
    }

    #[test]
    fn a_choice_is_clear_if_the_settings_differ_by_more_than_their_runs_do() {
        let rows =
            |noise: f64| vec![row(300, &[2.0, 2.0 + noise, 2.1]), row(3000, &[1.0, 1.0 + noise / 2.0, 1.05])];
        assert_eq!((report(rows(0.1)).is_clear(), report(rows(0.1)).doubt()), (Some(true), None));
        assert_eq!(report(rows(3.0)).is_clear(), Some(false));
        assert!(report(rows(3.0)).doubt().unwrap().contains("means little"));
        let once = report(vec![row(300, &[2.0]), row(3000, &[1.0])]);
        assert!(once.is_clear().is_none() && once.doubt().unwrap().contains("--runs 3"));
        let alone = report(vec![row(300, &[2.0, 2.1])]);
        assert!(alone.is_clear().is_none() && alone.doubt().is_none());
    }

    #[test]
    fn the_smallest_chunk_that_is_as_good_as_the_fastest_is_recommended() {
        let rows = vec![row(300, &[2.0]), row(3000, &[1.02, 1.01, 7.0]), row(30_000, &[1.0, 1.0, 1.0])];
        assert_eq!(report(rows).recommended().unwrap().setting.chunk.raw(), 3000);
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
