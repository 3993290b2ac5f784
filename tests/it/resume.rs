//! Cut, killed, interrupted: the same command goes on where it was.

mod cuts;
mod kills;
mod names;
mod stock;

use crate::proxy::{Plan, Proxy};
use crate::support::{Place, Receiver, Running, wsferry};

const B: usize = 3 << 20;

/// Runs `send --json` until that many bytes are acknowledged.
fn send_until(place: &Place, name: &str, url: &str, acknowledged: u64) -> Running {
    let sender = Running::start(wsferry().arg("send").arg(place.path(name)).arg(url).args([
        "--json",
        "--retry-for",
        "0s",
    ]));
    sender.wait_for(|event| {
        event["event"] == "progress" && event["acknowledged"].as_u64() >= Some(acknowledged)
    });
    sender
}

/// A proxy that is slow enough for a test to act in mid-file.
fn slow(receiver: &Receiver) -> Proxy {
    Proxy::start(receiver.address(), |_| {
        (Plan { rate: Some(60_000_000), ..Plan::default() }, Plan::default())
    })
}
