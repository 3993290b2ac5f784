//! How many connections each address has.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Bits of an IPv6 address that stand for one line: its owner has all addresses below.
const LINE: u32 = 64;

/// Counts connections. Clones count the same.
#[derive(Debug, Clone)]
pub(super) struct Addresses {
    most: u64,
    counts: Arc<Mutex<HashMap<IpAddr, u64>>>,
}

/// A connection that is counted until this is dropped.
#[derive(Debug)]
pub(super) struct Counted {
    counts: Arc<Mutex<HashMap<IpAddr, u64>>>,
    address: Option<IpAddr>,
}

impl Addresses {
    /// At most so many for each.
    pub(super) fn new(most: Option<u64>) -> Self {
        Self { most: most.unwrap_or(u64::MAX), counts: Arc::default() }
    }

    /// Counts one more, unless there are as many as may be. Without an address there is no limit.
    pub(super) fn enter(&self, address: Option<IpAddr>) -> Option<Counted> {
        let address = address.map(line);
        if let Some(address) = address {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(address).or_default();
            if *count >= self.most {
                return None;
            }
            *count += 1;
        }
        Some(Counted { counts: self.counts.clone(), address })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&address);
            }
        }
    }
}

fn line(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << (Ipv6Addr::BITS - LINE))).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_count_and_ipv6_has_one_for_a_line() {
        let addresses = Addresses::new(Some(2));
        let enter = |text: &str| addresses.enter(Some(text.parse().unwrap()));
        let (first, second) = (enter("192.0.2.1"), enter("::ffff:192.0.2.1"));
        assert!(first.is_some() && second.is_some() && enter("192.0.2.1").is_none());
        let _other = enter("192.0.2.2").unwrap();
        let (_a, _b) = (enter("2001:db8::1").unwrap(), enter("2001:db8::ffff:2").unwrap());
        assert!(enter("2001:db8::3").is_none() && enter("2001:db8:0:1::3").is_some());
        assert!(addresses.enter(None).is_some() && addresses.enter(None).is_some());
        drop(first);
        assert!(enter("192.0.2.1").is_some());
        drop(second);
        let _ = enter("192.0.2.1");
        assert!(!addresses.counts.lock().unwrap().contains_key(&"192.0.2.1".parse::<IpAddr>().unwrap()));
    }
}
