//! A signal to stop, which many transfers can wait for.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::channel::oneshot;
use futures::future::{FutureExt, Shared};

/// Tells when to stop. Clones tell the same.
#[derive(Debug, Clone)]
pub struct Shutdown(Shared<oneshot::Receiver<()>>);

/// Stops what waits for the [`Shutdown`] it came with; so does dropping it.
#[derive(Debug)]
pub struct ShutdownHandle(oneshot::Sender<()>);

impl Shutdown {
    /// A signal and the handle that gives it.
    pub fn new() -> (ShutdownHandle, Self) {
        let (sender, receiver) = oneshot::channel();
        (ShutdownHandle(sender), Self(receiver.shared()))
    }
}

impl ShutdownHandle {
    /// Gives the signal.
    pub fn stop(self) {
        let _ = self.0.send(());
    }
}

impl Future for Shutdown {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_unpin(cx).map(|_| ())
    }
}
