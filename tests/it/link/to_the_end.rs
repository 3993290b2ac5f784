//! As many connections as it takes: the exact files, or a panic.

use super::disk::Disk;
use super::file::File;
use super::{Direction, End, Fault, Options, Outcome, Pair};

/// Sends one file over as many connections as it takes: see [`send_all_to_the_end`].
pub fn send_to_the_end(
    file: &File,
    disk: &mut Disk,
    options: Options,
    fault: impl FnMut(Direction, usize, &str) -> Fault,
) -> End {
    send_all_to_the_end(std::slice::from_ref(file), std::slice::from_mut(disk), options, fault)
}

/// Sends `files` over two connections at most, the first with faults: the exact files, or a panic.
///
/// Returns how the first one ended.
pub fn send_all_to_the_end(
    files: &[File],
    disks: &mut [Disk],
    options: Options,
    fault: impl FnMut(Direction, usize, &str) -> Fault,
) -> End {
    let mut first = Pair::new(files, disks, options);
    let end = first.run(fault);
    let outcomes = first.outcomes;
    check_receipts(&outcomes, files, disks);
    let left: Vec<usize> =
        (0..files.len()).filter(|&at| !matches!(outcomes[at], Some(Outcome::Receipted(_)))).collect();
    if !left.is_empty() {
        // Those alone are offered again.
        let again: Vec<File> = left.iter().map(|&at| files[at].clone()).collect();
        let mut places: Vec<Disk> = left.iter().map(|&at| std::mem::take(&mut disks[at])).collect();
        let mut second = Pair::new(&again, &mut places, options);
        let second_end = second.run(|_, _, _| Fault::Deliver);
        assert_eq!(second_end, End::Receipted, "of the second connection, after {end:?}");
        check_receipts(&second.outcomes, &again, &places);
        left.into_iter().zip(places).for_each(|(at, disk)| disks[at] = disk);
    }
    end
}

/// A receipt means: exactly this file is there.
fn check_receipts(outcomes: &[Option<Outcome>], files: &[File], disks: &[Disk]) {
    for ((outcome, file), disk) in outcomes.iter().zip(files).zip(disks) {
        if let Some(Outcome::Receipted(digest)) = outcome {
            assert_eq!(*digest, file.digest());
            assert!(disk.sealed.as_ref() == Some(file), "a wrong file was called right");
        }
    }
}
