//! Numbers as people read them. Sizes and rates are decimal, as networks and disks are sold and measured: 1 MB is
//! 1,000,000 bytes.

use wsferry::storage::Size;

/// A size: three digits that count.
pub fn size(bytes: u64) -> String {
    Size(bytes).to_string()
}

/// Bytes a second.
pub fn rate(bytes_per_second: f64) -> String {
    format!("{}/s", size(bytes_per_second as u64))
}

/// A time: two units at most.
pub fn duration(seconds: u64) -> String {
    let two = |large: u64, one: &str, small: u64, other: &str| match small {
        0 => format!("{large} {one}"),
        small => format!("{large} {one} {small} {other}"),
    };
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => two(seconds / 60, "min", seconds % 60, "s"),
        3600..86_400 => two(seconds / 3600, "h", seconds % 3600 / 60, "min"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

/// A time that may be short: tenths of a second below ten.
pub fn moment(seconds: f64) -> String {
    if seconds < 9.95 { format!("{seconds:.1} s") } else { duration(seconds.round() as u64) }
}

/// How many there are of something, behind a comma, if there are any; what has no other word for many has an empty one.
pub fn part(count: u64, one: &str, many: &str) -> String {
    match count {
        0 => String::new(),
        1 => format!(", 1 {one}"),
        count => format!(", {count} {}", if many.is_empty() { one } else { many }),
    }
}

/// 1st, 2nd, 3rd, 4th, ...
pub fn ordinal(number: u32) -> String {
    let ending = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_in_few_digits_and_never_in_a_thousand_of_a_unit() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (9994, "9.99 kB"),
            (9996, "10.0 kB"),
            (999_499, "999 kB"),
            (999_500, "1.00 MB"),
            (268_435_456, "268 MB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (125, "2 min 5 s"),
            (3720, "1 h 2 min"),
            (3601, "1 h"),
            (100_000, "1 d 3 h"),
        ] {
            assert_eq!(duration(seconds), text);
        }
        for (seconds, text) in [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (75.4, "1 min 15 s")] {
            assert_eq!(moment(seconds), text);
        }
        for (number, text) in
            [(1, "1st"), (2, "2nd"), (3, "3rd"), (8, "8th"), (11, "11th"), (112, "112th"), (21, "21st")]
        {
            assert_eq!(ordinal(number), text);
        }
    }
}
