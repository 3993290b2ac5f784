//! The integration tests: one binary, real sockets, real files, seeded random data.

mod gateway;
mod model;
mod power;
mod properties;
mod proxy;
mod support;

mod allocations;
mod bench;
mod chaos;
mod command;
mod differential;
mod errors;
mod faults;
mod filesystems;
mod forged;
mod frames;
mod fuzzed;
mod golden;
mod handshakes;
mod holes;
mod hostile;
mod layers;
mod link;
mod machines;
mod neighbours;
mod paths;
mod resume;
mod serving;
mod sources;
mod takeover;
mod terminal;
mod transfer;
