//! What the file system of a destination can do, found out when it is opened, on a file that is made for it.

use std::io;

use super::folder::{Folder, FolderFile, Time};
use super::warning::Warning;

/// A moment that is no whole number of any coarser unit: an odd second, and all nine digits behind it.
const ODD: Time = (1_700_000_001, 123_456_789);
/// A moment before and one behind what any file system stores.
const EXTREMES: [i64; 2] = [-(1 << 42), 1 << 42];

/// Permission bits that are left by a umask of which nothing is known.
const GRANTED: u32 = 0o755;

/// Bytes of a hole that is tried.
const HOLE: u64 = 1 << 20;

/// What the file system can do.
#[derive(Debug, Clone)]
pub(super) struct Abilities {
    /// The user that what is made here belongs to.
    pub(super) owner: u32,
    /// Files can be locked.
    pub(super) locks: bool,
    /// An open file can be given a name.
    pub(super) links: bool,
    /// A file can be made without a name, and be given one.
    pub(super) unnamed: bool,
    /// Permission bits that what is made here may have: those that the umask leaves.
    pub(super) granted: u32,
    /// What was never written takes no room.
    pub(super) holes: bool,
    /// What it makes of a modification time; `None` if it sets none, or none that can be told beforehand.
    pub(super) times: Option<Times>,
    /// What it cannot do, for people.
    pub(super) warnings: Vec<Warning>,
}

/// What becomes of a modification time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    /// Times are whole multiples of so many nanoseconds.
    unit: i128,
    earliest: i64,
    latest: i64,
}

impl Abilities {
    /// Finds out. What cannot be tried, because the disk is full or broken just now, is taken to work: where it does
    /// not, that shows in time.
    pub(super) fn of(folder: &dyn Folder, probe: &str) -> Self {
        let mut abilities = Self {
            owner: rustix::process::geteuid().as_raw(),
            locks: true,
            links: true,
            unnamed: false,
            granted: GRANTED,
            holes: true,
            times: None,
            warnings: Vec::new(),
        };
        let _ = folder.remove_file(probe);
        if let Ok(file) = folder.create(probe, 0o600) {
            abilities.try_out(folder, &*file, probe);
            let _ = folder.remove_file(probe);
        }
        let _ = abilities.try_unnamed(folder, probe);
        abilities
    }

    fn try_out(&mut self, folder: &dyn Folder, file: &dyn FolderFile, probe: &str) {
        if let Ok(info) = file.info() {
            self.owner = info.owner;
        }
        // A device that fails says nothing of what the file system can do.
        if let Err(error) = file.try_lock()
            && rustix::io::Errno::from_io_error(&error) != Some(rustix::io::Errno::IO)
        {
            self.locks = false;
            self.warnings.push(Warning::NoLocks(error.to_string()));
        }
        let other = format!("{probe}-link");
        let _ = folder.remove_file(&other);
        self.links = folder.link(file, &other).is_ok();
        let _ = folder.remove_file(&other);
        if !self.links {
            // Neither may be able to say that a name is taken.
            let renamed = folder.rename(probe, folder, &other, false);
            if renamed.is_ok() {
                let _ = folder.rename(&other, folder, probe, true);
            } else {
                self.warnings.push(Warning::NoExclusiveNames);
            }
        }
        self.times = Times::of(file).ok();
        let made = file.zero(0..HOLE).and_then(|()| file.info());
        self.holes = made.map_or(true, |made| made.allocated < HOLE);
    }

    fn try_unnamed(&mut self, folder: &dyn Folder, probe: &str) -> io::Result<()> {
        let file = folder.create_unnamed(0o777)?;
        self.granted = file.info()?.mode & 0o777;
        folder.link(&*file, probe)?;
        self.unnamed = true;
        folder.remove_file(probe)
    }

    /// Whether a file that stands here with time `there` may have been given time `wanted`.
    pub(super) fn is_time(&self, there: Time, wanted: Time) -> bool {
        there == wanted || self.times.is_none_or(|times| times.stored(there) == times.stored(wanted))
    }
}

impl Times {
    fn of(file: &dyn FolderFile) -> io::Result<Self> {
        let stored = |(seconds, nanoseconds): Time| {
            file.set_mtime(seconds, nanoseconds)?;
            Ok::<_, io::Error>(file.info()?.mtime)
        };
        let (wanted, got) = (nanoseconds(ODD), nanoseconds(stored(ODD)?));
        // The coarsest unit that what is lost of it tells of.
        let units = [1, 100, 1000, 1_000_000, 10_000_000, 1_000_000_000, 2_000_000_000];
        let unit = units.into_iter().find(|unit| wanted / unit * unit == got);
        let unit = unit.ok_or(io::ErrorKind::InvalidData)?;
        let [earliest, latest] = EXTREMES.map(|seconds| stored((seconds, 0)).map_or(seconds, |(got, _)| got));
        // What wraps around instead tells nothing.
        let range = earliest..=latest;
        range
            .contains(&ODD.0)
            .then_some(Self { unit, earliest, latest })
            .ok_or(io::ErrorKind::InvalidData.into())
    }

    fn stored(&self, (seconds, nanos): Time) -> i128 {
        let clamped = seconds.clamp(self.earliest, self.latest);
        let nanos = if clamped == seconds { nanos } else { 0 };
        nanoseconds((clamped, nanos)).div_euclid(self.unit)
    }
}

fn nanoseconds((seconds, nanoseconds): Time) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_compared_as_they_are_stored() {
        let fine = Times { unit: 1, earliest: -(1 << 42), latest: 1 << 42 };
        assert_ne!(fine.stored((5, 1)), fine.stored((5, 2)));
        let coarse = Times { unit: 2_000_000_000, earliest: 315_532_800, latest: 4_354_819_198 };
        assert_eq!(coarse.stored((1_700_000_001, 9)), coarse.stored((1_700_000_000, 0)));
        assert_ne!(coarse.stored((1_700_000_002, 0)), coarse.stored((1_700_000_000, 0)));
        // Before 1980.
        assert_eq!(coarse.stored((-5, 7)), coarse.stored((315_532_800, 0)));
        assert_eq!(coarse.stored((1 << 40, 7)), coarse.stored((4_354_819_198, 0)));
    }
}
