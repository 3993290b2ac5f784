//! A number of bytes as people read it.

use std::fmt;

/// A number of bytes, printed with three digits that count and a decimal unit, as disks are sold: 1 MB is 1,000,000 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
        let &Self(bytes) = self;
        if bytes < 1000 {
            return write!(f, "{bytes} B");
        }
        let mut value = bytes as f64;
        for unit in UNITS {
            value /= 1000.0;
            // What would be rounded up to a fourth digit is told in the next unit.
            return match value {
                v if v < 9.995 => write!(f, "{v:.2} {unit}"),
                v if v < 99.95 => write!(f, "{v:.1} {unit}"),
                v if v < 999.5 => write!(f, "{v:.0} {unit}"),
                _ => continue,
            };
        }
        unreachable!("a u64 is below 19 EB")
    }
}
