#![no_main]
#![allow(dead_code)]

#[path = "../../it/model.rs"]
mod model;
#[path = "../../it/properties.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::chunk(data));
