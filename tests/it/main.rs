//! The integration tests: one binary, real sockets, real files, seeded random data.

mod proxy;
mod support;

mod golden;
mod layers;
mod link;
mod machines;
