#![no_main]
#![allow(dead_code)]

#[path = "../../it/differential.rs"]
mod differential;

libfuzzer_sys::fuzz_target!(|data: &[u8]| differential::frame(data));
