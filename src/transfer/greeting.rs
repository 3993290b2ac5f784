//! From an accepted connection to an open WebSocket, or to whatever else was asked for.

use std::time::Duration;

use super::addresses::{Addresses, Counted};
use super::metrics::Metrics;
use crate::runtime::{self, Stream};
use crate::transport::{
    Answered, Asking, Availability, Caller, Connection, Gate, Page, Request, Tls, TransportError,
};

/// What everybody who dials meets.
pub(super) struct House {
    pub(super) gate: Gate,
    pub(super) tls: Option<Tls>,
    pub(super) addresses: Addresses,
    pub(super) metrics: Option<Metrics>,
}

/// Whether a connection is one of few enough from its address.
pub(super) enum Admission {
    Counted(Counted),
    /// A proxy will say whose it is.
    Later,
    /// It is to be told so.
    None(Availability),
}

/// What somebody who dialled got.
pub(super) enum Greeted {
    Open(Box<Connection<Stream>>, Request, Option<Counted>),
    Page(Page, u16),
    /// It said nothing.
    Nothing,
}

impl House {
    /// Whether somebody may come in, as far as that can be told before a word was said.
    pub(super) fn admit(&self, caller: &Caller, is_draining: bool) -> Admission {
        if is_draining {
            return Admission::None(Availability::Draining);
        }
        if caller.is_trusted(&self.gate.proxies) {
            return Admission::Later;
        }
        let counted = self.addresses.enter(caller.address);
        counted.map_or(Admission::None(Availability::Crowded), Admission::Counted)
    }

    /// Answers what is asked, TLS included, within this time.
    pub(super) async fn greet(
        &self,
        stream: Stream,
        caller: Caller,
        admission: Admission,
        limit: Duration,
    ) -> Result<Greeted, TransportError> {
        let address = caller.shown.clone();
        let greeting = self.answer(stream, caller, admission);
        let timed_out = || TransportError::HandshakeTimeout { address, limit };
        runtime::timeout(limit, greeting).await.unwrap_or_else(|| Err(timed_out()))
    }

    async fn answer(
        &self,
        stream: Stream,
        caller: Caller,
        admission: Admission,
    ) -> Result<Greeted, TransportError> {
        let stream = match &self.tls {
            None => Some(stream),
            Some(tls) => tls.accept(stream, &caller.shown).await?,
        };
        let Some(stream) = stream else { return Ok(Greeted::Nothing) };
        let asking = Asking::read(stream, caller, &self.gate.proxies).await?;
        let Some(asking) = asking else { return Ok(Greeted::Nothing) };
        let (counted, availability) = match admission {
            Admission::Counted(counted) => (Some(counted), Availability::Open),
            Admission::None(availability) => (None, availability),
            Admission::Later => match self.addresses.enter(asking.caller().address) {
                Some(counted) => (Some(counted), Availability::Open),
                None => (None, Availability::Crowded),
            },
        };
        let text = self.metrics.as_ref().map(|metrics| || metrics.to_text());
        let text = text.as_ref().map(|text| text as &(dyn Fn() -> String + Sync));
        Ok(match asking.answer(&self.gate, availability, text).await? {
            Answered::Open(connection, request) => Greeted::Open(connection, request, counted),
            Answered::Page(page, status) => Greeted::Page(page, status),
        })
    }
}
