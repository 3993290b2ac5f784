//! The integration tests: one binary, real sockets, real files, seeded random data.

mod power;
mod proxy;
mod support;

mod chaos;
mod errors;
mod golden;
mod hostile;
mod layers;
mod link;
mod machines;
mod resume;
mod transfer;
