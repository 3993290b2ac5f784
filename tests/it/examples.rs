//! The examples run, and prove what they say.

// Their `main` is for people.
#![allow(dead_code)]

#[path = "../../examples/envelope.rs"]
mod envelope;
#[path = "../../examples/smol.rs"]
mod on_smol;
#[path = "../../examples/tokio.rs"]
mod on_tokio;
#[path = "../../examples/source_and_sink.rs"]
mod source_and_sink;

#[test]
fn frames_go_on_in_the_messages_of_a_host_that_loses_and_damages_some() {
    envelope::run().unwrap();
}

#[test]
fn a_sender_and_a_receiver_run_on_tokio() {
    on_tokio::run().unwrap();
}

#[test]
fn a_sender_and_a_receiver_run_on_smol() {
    on_smol::run().unwrap();
}

#[test]
fn bytes_go_from_a_source_to_a_sink_and_no_file_is_there() {
    source_and_sink::run().unwrap();
}
