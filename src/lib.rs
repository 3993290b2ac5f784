//! Ferries files of any size through any WebSocket that carries text.
//!
//! Some paths carry no binary at all, cap a message at 32 KiB and cut every connection after an hour or two. On
//! such a path a file goes in small Base64 text frames, each with a sequence number and a CRC-32, is acknowledged
//! as it arrives, and goes on where it was after any cut. [`protocol`] says how, exactly.
//!
//! | module | what it knows |
//! | --- | --- |
//! | [`protocol`] | frames, blocks and digests; no socket, file, clock or runtime |
//! | [`storage`] | files: the source, the partial file and its journal |
//! | [`transport`] | WebSockets: handshakes, frames, limits |
//! | [`transfer`] | the pumps that join the three, many files, many senders |
//! | [`runtime`] | the async runtime, in one file |
//! | [`floor`] | what the kernel alone costs, to measure a transfer against |
//!
//! `ARCHITECTURE.md` beside the sources follows a chunk from disk to disk and says where things go. `examples/` has a sender
//! and a receiver on tokio and on smol, a source and a sink of one's own, and frames inside another program's messages.
//!
//! The library prints nothing and never exits: progress is an [`Event`](transfer::Event), an error is a typed
//! value. The command line is behind the feature `cli`; without `net` only the protocol and the storage are left, and
//! no async crate is in sight.
//!
//! # Example
//!
//! A receiver and a sender in one program, over loopback:
//!
//! ```
//! use std::sync::Arc;
//! use wsferry::runtime;
//! use wsferry::storage::{Inbox, InboxOptions};
//! use wsferry::transfer::{self, Listener, RetryOptions, SendOptions, ServeOptions, Session, Shutdown};
//! use wsferry::transport::Endpoint;
//!
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path();
//! let file = dir.join("hello.txt");
//! std::fs::write(&file, "hello")?;
//!
//! runtime::block_on(async {
//!     let listener = Listener::bind("127.0.0.1:0").await?;
//!     let url: Endpoint = format!("ws://{}", listener.address()).parse()?;
//!     let inbox = Arc::new(Inbox::open(&dir.join("inbox"), InboxOptions::default())?);
//!     let (_stop, shutdown) = Shutdown::new();
//!     let receiver = runtime::spawn(async move {
//!         let options = ServeOptions { once: true, ..ServeOptions::default() };
//!         transfer::serve(&listener, &inbox, options, shutdown, Arc::new(|_, _, _| {})).await
//!     });
//!
//!     let mut session = Session::new(url, SendOptions::default(), RetryOptions::default());
//!     let sent = session.send(&file, None, &mut |_event| {}).await?;
//!     session.close().await;
//!     receiver.await?;
//!
//!     assert_eq!(sent.digest.unwrap().to_string(), blake3::hash(b"hello").to_string());
//!     assert_eq!(std::fs::read(dir.join("inbox/hello.txt"))?, b"hello");
//!     Ok(())
//! })
//! # as Result<(), Box<dyn std::error::Error>>
//! # ; Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]
// Without the network this page names modules that are not there.
#![cfg_attr(not(feature = "net"), allow(rustdoc::broken_intra_doc_links))]

#[cfg(feature = "net")]
pub mod floor;
pub mod protocol;
#[cfg(feature = "net")]
pub mod runtime;
pub mod storage;
#[cfg(feature = "net")]
pub mod transfer;
#[cfg(feature = "net")]
pub mod transport;
