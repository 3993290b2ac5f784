//! The integration tests: one binary, real sockets, real files, seeded random data.

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
mod forged;
mod frames;
mod fuzzed;
mod golden;
mod hostile;
mod interop;
mod layers;
mod link;
mod machines;
mod plain;
mod plain_answers;
mod plain_memory;
mod plain_pieces;
mod resume;
mod transfer;
