//! What a path carries: text and binary messages, the largest frame, round trip, rate, how long connections live.
//!
//! A probe offers nothing: its chunks are of no transfer, and a receiver verifies, acknowledges and forgets them. It needs
//! no leave of the receiver's and touches none of its files.

mod line;
mod search;

use std::time::{Duration, Instant};

use self::line::Line;
use self::search::FrameSearch;
use super::Error;
use crate::protocol::{DEFAULT_WINDOW, HeartbeatConfig, MIN_FRAME_LIMIT};
use crate::transport::dial::Route;
use crate::transport::{Dialer, Kind};

/// Pings, of which the quickest counts: what makes others slower is not the path.
const PINGS: u32 = 10;
/// How long bytes are sent to tell the rate.
const POUR: Duration = Duration::from_secs(3);
/// Between two signs of life on the connection whose lifetime is told.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
/// Connections that may fail one after another, beside those that say what a frame's size is.
const MAX_CUTS: u32 = 5;

/// Characters of the frames that tell how much a connection carries.
const SMALL_FRAME: usize = 16 << 10;
/// Bytes on the way meanwhile, which nobody has acknowledged when the connection is cut.
const IN_FLIGHT: u64 = 1 << 20;
/// How many times as slow as it could be a connection carries what tells its age from its load.
const SLOWER: u32 = 4;

/// How to probe.
#[derive(Debug, Clone, Copy)]
pub struct ProbeOptions {
    /// A frame that nothing is heard of for so long has not passed.
    pub patience: Duration,
    /// How long to watch a connection that is in use, and one that is idle; zero watches none.
    pub watch: Duration,
}

impl Default for ProbeOptions {
    fn default() -> Self {
        Self { patience: Duration::from_secs(3), watch: Duration::ZERO }
    }
}

/// What became of a frame that did not pass, or of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It was closed with this code of RFC 6455; 1005 if there was none.
    Closed(u16),
    /// It was cut without a word.
    Lost,
    /// Nothing came any more.
    Stalled,
    /// What arrived was something else.
    Damaged,
}

/// What the probe is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeStep {
    /// Making the first connection.
    Connecting,
    /// Whether binary messages pass.
    Binary,
    /// Pings.
    RoundTrip,
    /// A frame of so many characters.
    Frame(usize),
    /// Sending for a few seconds.
    Rate,
    /// Watching connections, for so much longer.
    Watching(Duration),
}

/// A connection that was watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watched {
    /// How long it lived, or was watched.
    pub lived: Duration,
    /// What ended it, if anything did.
    pub ended: Option<Refusal>,
}

/// Connections that are cut while they carry something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The characters of frames that one carried before.
    pub characters: u64,
    /// How long it lived.
    pub lived: Duration,
    /// What became of it.
    pub ended: Refusal,
    /// What is limited, as far as that shows.
    pub limit: CutLimit,
}

/// What decides when a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutLimit {
    /// What it has carried: one that carries it slowly lives for longer.
    Characters,
    /// How old it is: one that carries less is cut as early.
    Age,
    /// It did not show.
    Unclear,
}

/// What a path carries.
#[derive(Debug, Clone, PartialEq)]
pub struct PathReport {
    /// The receiver's program and version, by its own word.
    pub program: String,
    /// Which way the first connection took.
    pub route: Route,
    /// Whether a binary message arrived: text does, or there would be no report.
    pub binary: bool,
    /// The quickest round trip.
    pub round_trip: Duration,
    /// The largest frame that passed, in characters; 0 if not even the least did.
    pub largest_frame: usize,
    /// The smallest frame that did not pass, and what became of it.
    pub refused: Option<(usize, Refusal)>,
    /// Bytes of files a second towards the receiver, if connections live long enough to tell.
    pub bytes_per_second: Option<f64>,
    /// What a connection carries before it is cut, if one was cut while the rate was measured.
    pub cut: Option<Cut>,
    /// A connection in use, if one was watched.
    pub in_use: Option<Watched>,
    /// A connection on which nothing was sent, watched for less than the 20 s after which both sides give signs of life.
    pub idle: Option<Watched>,
}

/// Measures the path to a receiver.
///
/// # Errors
/// If there is no receiver to be reached, or it does not speak this protocol.
pub async fn probe(
    dialer: &Dialer,
    options: ProbeOptions,
    observer: &mut (dyn FnMut(ProbeStep) + Send),
) -> Result<PathReport, Error> {
    observer(ProbeStep::Connecting);
    let prober = Prober { dialer, options };
    let (connection, route) = dialer.dial_told().await?;
    let mut line = Line::open(connection, Kind::Text, options.patience).await?;
    let program = line.peer.program.clone();
    observer(ProbeStep::RoundTrip);
    let round_trip = prober.round_trip(&mut line).await?;
    let (largest_frame, refused) = prober.largest_frame(line, observer).await?;
    observer(ProbeStep::Rate);
    let (bytes_per_second, cut) = prober.rate(largest_frame).await?;
    observer(ProbeStep::Binary);
    let binary = match prober.open(Kind::Binary).await {
        Ok(line) => {
            line.close().await;
            true
        }
        Err(_) => false,
    };
    let (in_use, idle) = prober.watch(observer).await?;
    Ok(PathReport {
        program,
        route,
        binary,
        round_trip,
        largest_frame,
        refused,
        bytes_per_second,
        cut,
        in_use,
        idle,
    })
}

struct Prober<'a> {
    dialer: &'a Dialer,
    options: ProbeOptions,
}

impl Prober<'_> {
    async fn open(&self, kind: Kind) -> Result<Line, Error> {
        Line::open(self.dialer.dial().await?, kind, self.options.patience).await
    }

    /// Another connection, where one may have ended by itself.
    async fn open_again(&self) -> Result<Line, Error> {
        let mut cuts = 0;
        loop {
            match self.open(Kind::Text).await {
                Err(error) if cuts < MAX_CUTS && error.kind() == super::ErrorKind::Interrupted => cuts += 1,
                opened => return opened,
            }
        }
    }

    async fn round_trip(&self, line: &mut Line) -> Result<Duration, Error> {
        let (mut quickest, mut cuts) = (None::<Duration>, 0);
        for _ in 0..PINGS {
            match line.round_trip(self.options.patience).await {
                Ok(time) => quickest = Some(quickest.map_or(time, |quickest| quickest.min(time))),
                Err(_) if cuts < MAX_CUTS => {
                    cuts += 1;
                    *line = self.open_again().await?;
                }
                Err(_) => break,
            }
        }
        let (peer, silence) = (self.dialer.endpoint().to_string(), self.options.patience);
        quickest.ok_or(Error::Stalled { peer, silence })
    }

    /// The largest frame that passes, each on a connection that has carried a small one.
    async fn largest_frame(
        &self,
        line: Line,
        observer: &mut (dyn FnMut(ProbeStep) + Send),
    ) -> Result<(usize, Option<(usize, Refusal)>), Error> {
        let (mut search, mut line) = (FrameSearch::default(), Some(line));
        while let Some(frame) = search.next() {
            observer(ProbeStep::Frame(frame));
            let mut open = match line.take() {
                Some(line) => line,
                None => self.open_again().await?,
            };
            // A small one goes before it: what comes damaged behind it is known for a chunk.
            let carried = match open.carry(MIN_FRAME_LIMIT / 2, self.options.patience).await {
                Ok(()) => open.carry(frame, self.options.patience).await,
                refused => refused,
            };
            match carried {
                Ok(()) => {
                    search.passed(frame);
                    line = Some(open);
                }
                Err(why) => search.refused(frame, why),
            }
        }
        if let Some(line) = line {
            line.close().await;
        }
        Ok(search.found())
    }

    async fn rate(&self, frame: usize) -> Result<(Option<f64>, Option<Cut>), Error> {
        if frame == 0 {
            return Ok((None, None));
        }
        // Where connections live for less than that, a shorter time has to do.
        let mut is_cut = false;
        for duration in [POUR, POUR / 4, POUR / 16] {
            let mut line = self.open_again().await?;
            if let Ok(rate) = line.pour(frame, DEFAULT_WINDOW, duration, self.options.patience).await {
                line.close().await;
                let cut = if is_cut { self.cut(frame).await? } else { None };
                return Ok((Some(rate), cut));
            }
            is_cut = true;
        }
        Ok((None, self.cut(frame).await?))
    }

    /// What limits a connection: one carries all it can, and the next the same at a quarter of the rate. In small frames,
    /// which tell where the end was.
    async fn cut(&self, frame: usize) -> Result<Option<Cut>, Error> {
        let (frame, patience) = (frame.min(SMALL_FRAME), self.options.patience);
        let mut line = self.open_again().await?;
        let began = Instant::now();
        let Err(ended) = line.pour(frame, IN_FLIGHT, 2 * POUR, patience).await else { return Ok(None) };
        let (characters, lived) = (line.carried(frame), began.elapsed());
        let mut cut = Cut { characters, lived, ended, limit: CutLimit::Unclear };
        if characters == 0 {
            return Ok(Some(cut));
        }
        let frames = (characters / frame as u64).max(1) as u32;
        let mut line = self.open_again().await?;
        let began = Instant::now();
        let most = characters + characters / 2;
        let ended = line.drip(frame, lived * SLOWER / frames, most, patience).await;
        let (carried, slowly) = (line.carried(frame), began.elapsed());
        match ended {
            Some(ended) if slowly > lived * SLOWER / 2 && carried > characters / 2 => {
                // What came slowly was acknowledged up to its end.
                cut = Cut { characters: carried.max(characters), ended, limit: CutLimit::Characters, ..cut };
            }
            Some(_) if slowly < lived * 2 && carried < characters / 2 => cut.limit = CutLimit::Age,
            _ => {}
        }
        Ok(Some(cut))
    }

    /// One connection that is used a little, and one on which nothing is sent.
    async fn watch(
        &self,
        observer: &mut (dyn FnMut(ProbeStep) + Send),
    ) -> Result<(Option<Watched>, Option<Watched>), Error> {
        let watch = self.options.watch;
        if watch.is_zero() {
            return Ok((None, None));
        }
        let in_use = async {
            let mut line = self.open_again().await?;
            let began = Instant::now();
            let ended = loop {
                let left = watch.saturating_sub(began.elapsed());
                observer(ProbeStep::Watching(left));
                if left.is_zero() {
                    line.close().await;
                    break None;
                }
                let used = match line.wait(SIGN_OF_LIFE.min(left)).await {
                    Ok(()) => line.round_trip(self.options.patience).await.map(drop),
                    ended => ended,
                };
                if let Err(why) = used {
                    break Some(why);
                }
            };
            Ok(Watched { lived: began.elapsed().min(watch), ended })
        };
        let idle = async {
            let mut line = self.open_again().await?;
            let began = Instant::now();
            // Behind this both sides say something by themselves.
            let limit = watch.min(HeartbeatConfig::default().interval - Duration::from_secs(1));
            let ended = line.wait(limit).await.err();
            // One that was dropped without a word shows when it is used again.
            let ended = match ended {
                None => line.round_trip(self.options.patience).await.err(),
                ended => ended,
            };
            Ok(Watched { lived: began.elapsed().min(limit), ended })
        };
        let (in_use, idle) = futures::future::join(in_use, idle).await;
        let (in_use, idle): (Result<_, Error>, Result<_, Error>) = (in_use, idle);
        Ok((Some(in_use?), Some(idle?)))
    }
}
