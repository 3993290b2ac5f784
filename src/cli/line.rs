//! The line that shows a transfer, made for so many columns: never wider, whatever it has to say.

use unicode_width::UnicodeWidthChar;

use super::paint::Paint;
use super::words;

/// The cells of a name where there is room, and where there is little.
const NAME: usize = 24;
const SHORT_NAME: usize = 12;
/// A bar below this many cells says nothing.
const BAR: usize = 5;
/// A reason that is cut to fewer cells says nothing.
const REASON: usize = 12;

/// All that the line tells.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    /// Files that are done, and all of them if that is known, where one line tells of several.
    pub files: Option<(u64, Option<u64>)>,
    pub name: String,
    pub done: u64,
    /// Nothing while the size is not known.
    pub total: Option<u64>,
    /// Bytes a second, over the last seconds.
    pub rate: Option<f64>,
    /// Seconds.
    pub elapsed: u64,
    pub status: Status,
}

/// What happens right now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Status {
    #[default]
    Moving,
    /// What was held is compared; percent.
    Verifying(u64),
    /// Nothing has moved for so many seconds.
    Stalled(u64),
    /// The connection is gone; it is made again in so many seconds.
    Cut {
        why: String,
        seconds: u64,
        attempt: u32,
    },
    Connecting,
}

/// What gives way to the width, in this order. The bar gives way before all of them, the name takes what is left
/// once all of them are gone, and percent and state stay.
const GIVES_WAY: [Part; 9] = [
    Part::Elapsed,
    Part::Total,
    Part::LongName,
    Part::Eta,
    Part::WholeReason,
    Part::Done,
    Part::Reason,
    Part::Rate,
    Part::Attempt,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Elapsed,
    Total,
    LongName,
    Eta,
    WholeReason,
    Done,
    Reason,
    Rate,
    Attempt,
}

/// The line, at most so many cells wide.
pub fn line(state: &State, columns: usize) -> String {
    for gone in 0..=GIVES_WAY.len() {
        let has = |part| GIVES_WAY[gone..].contains(&part);
        let room = if has(Part::LongName) { NAME } else { SHORT_NAME };
        let left = left(state, room);
        let reason = reason(state).filter(|_| has(Part::Reason));
        let taken = |right: &[String]| width(&left) + right.iter().map(|part| 1 + width(part)).sum::<usize>();
        let mut right = right(state, has, reason.as_deref());
        if let Some(reason) = reason.filter(|_| !has(Part::WholeReason)) {
            let rest = taken(&right).saturating_sub(width(&reason));
            let room = columns.saturating_sub(rest);
            if room < REASON.min(width(&reason)) {
                continue;
            }
            right = self::right(state, has, Some(&shorten(&reason, room)));
        }
        let used = taken(&right);
        if used > columns {
            continue;
        }
        let bar = match state.total {
            Some(total) if gone == 0 && columns - used > BAR => bar(state.done, total, columns - used - 1),
            _ => String::new(),
        };
        let parts = [left, bar].into_iter().chain(right).filter(|part| !part.is_empty());
        return parts.collect::<Vec<_>>().join(" ");
    }
    // The name takes what the rest leaves.
    let rest = right(state, |_| false, None).join(" ");
    let rest = cut(&rest, columns);
    let percent = percent(state).unwrap_or_default();
    let taken = [&rest, &percent].iter().filter(|part| !part.is_empty()).map(|part| 1 + width(part)).sum();
    let name = shorten(&state.name, columns.saturating_sub(taken));
    let all = [name, percent, rest].into_iter().filter(|part| !part.is_empty());
    cut(&all.collect::<Vec<_>>().join(" "), columns)
}

/// The same with colours: the bar, and the state, which is what stands last.
pub fn painted(line: &str, status: &Status, paint: Paint) -> String {
    let at = match status {
        Status::Moving | Status::Verifying(_) | Status::Connecting => None,
        Status::Stalled(_) => line.rfind("stalled "),
        Status::Cut { .. } => line.rfind("cut: ").or_else(|| line.rfind("again in ")),
    };
    let (line, state) = line.split_at(at.unwrap_or(line.len()));
    let state = match status {
        _ if state.is_empty() => String::new(),
        Status::Cut { .. } => paint.bad(state),
        _ => paint.doubtful(state),
    };
    let is_bar = |c| matches!(c, '━' | '╸' | '─');
    let bar = line.split(' ').find(|part| part.chars().count() > BAR && part.chars().all(is_bar));
    match bar.and_then(|bar| line.split_once(bar).map(|around| (bar, around))) {
        None => format!("{line}{state}"),
        Some((bar, (before, behind))) => {
            let (done, rest) = bar.split_at(bar.find('─').unwrap_or(bar.len()));
            format!("{before}{}{}{behind}{state}", paint.good(done), paint.faint(rest))
        }
    }
}

/// The line that stands for transfers without a row of their own.
pub fn more(count: usize, rate: f64, columns: usize) -> String {
    let rate = if rate >= 1.0 { format!(", {}", words::rate(rate)) } else { String::new() };
    cut(&format!("+{count} more{rate}"), columns)
}

/// Files, name and percent.
fn left(state: &State, room: usize) -> String {
    let files = state.files.map(|files| match files {
        (done, Some(all)) => format!("{done}/{all} files"),
        (1, None) => "1 file".to_owned(),
        (done, None) => format!("{done} files"),
    });
    let name = Some(shorten(&state.name, room)).filter(|name| !name.is_empty());
    [files, name, percent(state)].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

fn percent(state: &State) -> Option<String> {
    let total = state.total?;
    // All of nothing is all; what is not all is never told as all.
    let percent = match total {
        0 => 100,
        total => (u128::from(state.done.min(total)) * 100 / u128::from(total)) as u64,
    };
    Some(format!("{percent}%"))
}

/// Why there is no connection.
fn reason(state: &State) -> Option<String> {
    let Status::Cut { why, .. } = &state.status else { return None };
    Some(printable(why)).filter(|why| !why.is_empty())
}

fn right(state: &State, has: impl Fn(Part) -> bool, reason: Option<&str>) -> Vec<String> {
    let mut parts = Vec::new();
    if has(Part::Done) {
        parts.push(match state.total {
            Some(total) if has(Part::Total) => format!("{}/{}", words::size(state.done), words::size(total)),
            _ => words::size(state.done),
        });
    }
    if has(Part::Elapsed) {
        parts.push(format!("in {}", words::duration(state.elapsed)));
    }
    let rate = state.rate.filter(|rate| *rate >= 1.0);
    if has(Part::Rate) {
        parts.push(rate.map_or_else(|| "--".to_owned(), words::rate));
    }
    if let Some(total) = state.total
        && has(Part::Eta)
    {
        let left = total.saturating_sub(state.done) as f64;
        let eta = rate.map_or_else(|| "--".to_owned(), |rate| words::duration((left / rate).ceil() as u64));
        parts.push(format!("ETA {eta}"));
    }
    match &state.status {
        Status::Moving => {}
        Status::Verifying(percent) => parts.push(format!("verifying {percent}%")),
        Status::Stalled(seconds) => parts.push(format!("stalled {}", words::duration(*seconds))),
        Status::Connecting => parts.push("connecting".to_owned()),
        Status::Cut { seconds, attempt, .. } => {
            let why = reason.map_or_else(String::new, |reason| format!("{reason}; "));
            let (cut, attempt) = match has(Part::Attempt) {
                true => ("cut: ", format!(" ({})", words::ordinal(*attempt))),
                false => ("", String::new()),
            };
            parts.push(format!("{cut}{why}again in {}{attempt}", words::duration(*seconds)));
        }
    }
    parts
}

fn bar(done: u64, total: u64, cells: usize) -> String {
    let full = match total {
        0 => cells,
        total => (u128::from(done.min(total)) * cells as u128 / u128::from(total)) as usize,
    };
    (0..cells)
        .map(|cell| {
            if cell < full {
                '━'
            } else if cell == full {
                '╸'
            } else {
                '─'
            }
        })
        .collect()
}

/// The cells that a text takes. What is joined is counted as if it were not: terminals differ, and a line that is
/// too short on some is better than one that wraps on others.
pub fn width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// What belongs together on the screen: a letter and its accents, an emoji and what is joined to it.
fn clusters(text: &str) -> Vec<&str> {
    let is_flag = |c| ('\u{1f1e6}'..='\u{1f1ff}').contains(&c);
    let is_tone = |c| ('\u{1f3fb}'..='\u{1f3ff}').contains(&c);
    let mut clusters = Vec::new();
    let (mut start, mut before, mut flags) = (0, None, 0);
    for (at, c) in text.char_indices() {
        let joined = before == Some('\u{200d}')
            || c.width() == Some(0)
            || is_tone(c)
            || (is_flag(c) && before.is_some_and(is_flag) && flags % 2 == 1);
        if at > start && !joined {
            clusters.push(&text[start..at]);
            start = at;
            flags = 0;
        }
        flags += usize::from(is_flag(c));
        before = Some(c);
    }
    if start < text.len() {
        clusters.push(&text[start..]);
    }
    clusters
}

/// As much of a text from its beginning as fits.
fn cut(text: &str, cells: usize) -> String {
    let mut left = cells;
    let fits = |cluster: &&str| {
        let fits = width(cluster) <= left;
        left = left.saturating_sub(width(cluster));
        fits
    };
    clusters(text).into_iter().take_while(fits).collect()
}

/// A name of at most so many cells: its middle gives way, so that the ending stays.
pub fn shorten(name: &str, cells: usize) -> String {
    let name = printable(name);
    if width(&name) <= cells {
        return name;
    }
    let Some(rest) = cells.checked_sub(1) else { return String::new() };
    let tail = rest / 2;
    let mut ending = Vec::new();
    let mut left = tail;
    for cluster in clusters(&name).into_iter().rev() {
        let Some(rest) = left.checked_sub(width(cluster)) else { break };
        left = rest;
        ending.push(cluster);
    }
    format!("{}…{}", cut(&name, rest - tail), ending.into_iter().rev().collect::<String>())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn half() -> State {
        State {
            name: "backup.tar".to_owned(),
            done: 120_000_000,
            total: Some(240_000_000),
            rate: Some(10_000_000.0),
            elapsed: 72,
            ..State::default()
        }
    }

    fn refused() -> State {
        let why = "connection refused".to_owned();
        State { rate: None, status: Status::Cut { why, seconds: 4, attempt: 8 }, ..half() }
    }

    #[test]
    fn what_does_not_fit_gives_way_in_the_stated_order() {
        let of = |columns| line(&half(), columns);
        assert_eq!(
            of(80),
            "backup.tar 50% ━━━━━━━━━╸──────── 120 MB/240 MB in 1 min 12 s 10.0 MB/s ETA 12 s"
        );
        assert_eq!(of(60), "backup.tar 50% 120 MB/240 MB 10.0 MB/s ETA 12 s");
        assert_eq!(of(45), "backup.tar 50% 120 MB 10.0 MB/s ETA 12 s");
        assert_eq!(of(32), "backup.tar 50% 120 MB 10.0 MB/s");
        assert_eq!(of(26), "backup.tar 50% 10.0 MB/s");
        assert_eq!(of(20), "backup.tar 50%");
        assert_eq!(of(8), "ba…r 50%");
    }

    #[test]
    fn a_cut_is_told_with_its_reason_where_there_is_room_and_always_with_its_countdown() {
        let of = |columns| line(&refused(), columns);
        let whole = "in 1 min 12 s -- ETA -- cut: connection refused; again in 4 s (8th)";
        assert!(of(200).ends_with(whole), "{}", of(200));
        assert!(of(80).ends_with("cut: connection refused; again in 4 s (8th)"), "{}", of(80));
        assert_eq!(of(61), "backup.tar 50% -- cut: connection refused; again in 4 s (8th)");
        assert_eq!(of(55), "backup.tar 50% -- cut: connec…fused; again in 4 s (8th)");
        assert_eq!(of(41), "backup.tar 50% -- cut: again in 4 s (8th)");
        assert_eq!(of(40), "backup.tar 50% cut: again in 4 s (8th)");
        assert_eq!(of(20), "b…r 50% again in 4 s");
    }

    #[test]
    fn what_has_no_row_is_counted_with_its_rate() {
        assert_eq!(more(3, 41e6, 80), "+3 more, 41.0 MB/s");
        assert_eq!((more(3, 0.0, 80), more(3, 41e6, 7)), ("+3 more".to_owned(), "+3 more".to_owned()));
    }

    #[test]
    fn a_size_that_is_not_known_has_no_percent_and_no_end() {
        let state = State { total: None, ..half() };
        assert_eq!(line(&state, 80), "backup.tar 120 MB in 1 min 12 s 10.0 MB/s");
    }

    #[test]
    fn a_name_gives_way_in_its_middle_by_cells_and_what_is_joined_stays_whole() {
        assert_eq!(
            shorten("a-very-long-name-of-some-backup-2026-11-22.tar.zst", 24),
            "a-very-long-…-22.tar.zst"
        );
        assert_eq!(shorten("文件名很长的备份.tar", 10), "文件….tar");
        let family = "👨\u{200d}👩\u{200d}👧";
        assert_eq!(shorten(&format!("{family}{family}.txt"), 12), format!("{family}….txt"));
        assert_eq!(shorten("a\x1b[2Jb", 9), "a\u{fffd}[2Jb");
    }

    fn states() -> impl Strategy<Value = State> {
        let status = prop_oneof![
            Just(Status::Moving),
            Just(Status::Connecting),
            (0..100u64).prop_map(Status::Verifying),
            any::<u64>().prop_map(Status::Stalled),
            ("\\PC{0,60}", any::<u64>(), any::<u32>()).prop_map(|(why, seconds, attempt)| Status::Cut {
                why,
                seconds,
                attempt
            }),
        ];
        let files = proptest::option::of((any::<u64>(), any::<Option<u64>>()));
        let numbers = (any::<u64>(), any::<Option<u64>>(), any::<Option<f64>>(), any::<u64>());
        (files, "(?s).{0,60}", numbers, status).prop_map(
            |(files, name, (done, total, rate, elapsed), status)| State {
                files,
                name,
                done,
                total,
                rate,
                elapsed,
                status,
            },
        )
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_its_columns_or_moves_the_cursor(state in states(), columns in 0..250usize) {
            let line = line(&state, columns);
            prop_assert!(width(&line) <= columns, "{line:?}");
            prop_assert!(!line.contains(char::is_control), "{line:?}");
        }

        #[test]
        fn more_columns_never_show_fewer_parts(state in states(), columns in 20..250usize) {
            let shown = |columns| {
                let line = line(&state, columns);
                ["/s", "ETA", " in ", "cut: "].map(|part| line.contains(part))
            };
            // A name or a reason may hold anything.
            let clean = !state.name.contains(['/', ' ', ':', 'E']);
            let clean = clean && !matches!(&state.status, Status::Cut { .. });
            prop_assume!(clean);
            for (narrow, wide) in shown(columns).into_iter().zip(shown(columns + 1)) {
                prop_assert!(!narrow || wide);
            }
        }
    }
}
