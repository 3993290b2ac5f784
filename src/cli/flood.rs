//! What comes too often to be told each time: the first is told, the others are counted.

use std::time::{Duration, Instant};

/// How long is counted before the count is told.
pub const PERIOD: Duration = Duration::from_secs(60);

/// Lets the first few of a period through, and counts the others.
#[derive(Debug)]
pub struct Flood {
    allowed: u32,
    /// Since when, and how many were let through.
    period: Option<(Instant, u32)>,
    counted: u64,
    /// What the last one was that was not let through.
    last: String,
}

/// What was not told one by one.
#[derive(Debug, PartialEq, Eq)]
pub struct Counted {
    pub count: u64,
    pub seconds: u64,
    pub last: String,
}

/// What to do with one.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// Tell it, and ask for the count when a period is over.
    First,
    /// Tell it.
    Another,
    /// It was counted.
    Counted,
}

impl Flood {
    /// One that lets so many through in a period.
    pub fn new(allowed: u32) -> Self {
        Self { allowed, period: None, counted: 0, last: String::new() }
    }

    pub fn admit(&mut self, reason: &str, now: Instant) -> Admission {
        match &mut self.period {
            None => {
                self.period = Some((now, 1));
                Admission::First
            }
            Some((_, told)) if *told < self.allowed => {
                *told += 1;
                Admission::Another
            }
            Some(_) => {
                self.counted += 1;
                reason.clone_into(&mut self.last);
                Admission::Counted
            }
        }
    }

    /// At the end of a period: what was counted in it. The next one begins, unless nothing was.
    pub fn take(&mut self, now: Instant) -> Option<Counted> {
        let (since, _) = self.period.take()?;
        let count = std::mem::take(&mut self.counted);
        (count > 0).then(|| {
            // Whoever comes on is told with the next count.
            self.period = Some((now, self.allowed));
            let seconds = now.saturating_duration_since(since).as_secs_f64().round() as u64;
            Counted { count, seconds, last: std::mem::take(&mut self.last) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_and_the_others_are_counted_until_there_are_none() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut flood = Flood::new(2);
        assert_eq!(flood.take(start), None);
        assert_eq!(flood.admit("a", start), Admission::First);
        assert_eq!(flood.admit("b", after(1)), Admission::Another);
        for _ in 0..12 {
            assert_eq!(flood.admit("c", after(2)), Admission::Counted);
        }
        let counted = |count, last: &str| Some(Counted { count, seconds: 60, last: last.to_owned() });
        assert_eq!(flood.take(after(60)), counted(12, "c"));
        // It goes on: only counts are told.
        assert_eq!(flood.admit("d", after(61)), Admission::Counted);
        assert_eq!(flood.take(after(120)), counted(1, "d"));
        // It stops: the next is told again.
        assert_eq!(flood.take(after(180)), None);
        assert_eq!(flood.admit("e", after(181)), Admission::First);
    }
}
