#![no_main]
#![allow(dead_code)]

#[path = "../../it/link.rs"]
mod link;
#[path = "../../it/model.rs"]
mod model;
#[path = "../../it/properties.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::control(data));
