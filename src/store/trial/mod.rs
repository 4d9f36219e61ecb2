//! A store, tried for all that a repository relies on: what it answers, and what follows from that. `rewindfs doctor` shows it.
//!
//! Works with small objects of its own under [`PLACE`], which no part of a repository is, and which are removed again where the
//! credentials allow that; where they do not, the next trial writes over the same few. Needs no password and reads nothing of a
//! repository that lies in the same place.

mod conditions;
mod listings;
mod objects;
mod rights;

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::id::ObjectKey;
use crate::store::pace::Paced;
use crate::store::s3::{Credentials, S3};
use crate::store::url::Location;
use crate::store::{Error, Kind, Store, Traffic, local, metered, retry};

/// What the names of a trial's objects begin with.
pub const PLACE: &str = "doctor/";

/// A clock that is further off is a reason to look after it.
const CLOCK_ADVICE: Duration = Duration::from_secs(60);
/// S3 refuses requests from fifteen minutes on; two clocks may drift further apart.
const CLOCK_MAX: Duration = Duration::from_secs(600);
/// An answer that takes longer than this is worth a word: opening a snapshot asks for some ten of them, one after the other.
const LATENCY_ADVICE: Duration = Duration::from_millis(300);

/// How an answer is to be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// A repository can be kept there; something could be better, or should be known.
    Advice,
    /// No repository can be kept there like this.
    Bad,
}

/// One thing that was tried. The JSON field names are a contract with scripts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// What was tried, in one or two words.
    pub what: &'static str,
    /// How to take the answer.
    pub verdict: Verdict,
    /// The answer.
    pub found: String,
    /// What follows from it; empty where nothing does.
    pub follows: String,
}

/// Tries the store at `location`, and tells what was found, in the order of trying. Stops early where nothing more can be tried.
pub async fn examine(location: &Location, traffic: &Traffic) -> Vec<Finding> {
    let mut trial = match Trial::open(location, traffic).await {
        Ok(trial) => trial,
        Err(error) => {
            let found = error.to_string();
            return vec![Finding {
                what: "reachable",
                verdict: Verdict::Bad,
                found,
                follows: "nothing else can be tried".into(),
            }];
        }
    };
    // Each step that cannot go on has said why.
    let _: Result<(), Stop> = trial.run(location).await;
    trial.findings
}

/// There is no use in going on; the reason is among the findings.
struct Stop;

/// A trial under way.
struct Trial {
    store: Store,
    /// The same where it is S3, for what only S3 has.
    s3: Option<Arc<S3>>,
    findings: Vec<Finding>,
}

impl Trial {
    async fn open(location: &Location, traffic: &Traffic) -> Result<Self, Error> {
        let pace = traffic.pace.clone();
        let (bare, s3): (Store, _) = match location {
            Location::Folder(root) => {
                let folder = Arc::new(local::Local::open(root)?);
                (Arc::new(Paced::new(folder, pace)), None)
            }
            Location::S3(place) => {
                let s3 = Arc::new(S3::connect(place, Credentials::Chain, pace).await?);
                (s3.clone(), Some(s3))
            }
        };
        let metered = Arc::new(metered::Metered::new(bare, traffic.meter.clone()));
        Ok(Self {
            store: Arc::new(retry::Retry::new(metered, retry::Policy::default())),
            s3,
            findings: Vec::new(),
        })
    }

    async fn run(&mut self, location: &Location) -> Result<(), Stop> {
        self.reach().await?;
        self.clock();
        self.transport(location);
        self.objects().await?;
        self.listings().await?;
        self.conditions().await?;
        self.rights(location).await;
        Ok(())
    }

    /// Whether it answers at all, and lets us list.
    async fn reach(&mut self) -> Result<(), Stop> {
        let began = Instant::now();
        let listed = self.store.list(PLACE, None, 1).await;
        let first = began.elapsed();
        self.unless(
            "reachable",
            listed,
            "without this no repository can be kept there",
        )?;
        self.good(
            "reachable",
            format!(
                "{} answered after {} ms",
                self.store.describe(),
                first.as_millis()
            ),
        );
        let began = Instant::now();
        let absent = self.store.head(&key("absent")).await;
        self.unless("latency", absent, "objects must be asked for")?;
        let took = began.elapsed();
        let found = format!("{} ms for a small request", took.as_millis());
        match took > LATENCY_ADVICE {
            true => self.advise(
                "latency",
                found,
                "opening snapshots will be slow; a region that is closer answers sooner",
            ),
            false => self.good("latency", found),
        }
        Ok(())
    }

    fn clock(&mut self) {
        let Some(offset) = self.s3.as_ref().and_then(|s3| s3.clock_offset_ms()) else {
            return;
        };
        let off = Duration::from_millis(offset.unsigned_abs());
        let way = if offset > 0 { "ahead of" } else { "behind" };
        let found = format!(
            "this machine's is {:.0} s {way} the server's",
            off.as_secs_f64()
        );
        let follows = "set this machine's clock (timedatectl set-ntp true): the server refuses requests from another time";
        if off > CLOCK_MAX {
            self.bad("clock", found, follows);
        } else if off > CLOCK_ADVICE {
            self.advise("clock", found, follows);
        } else {
            self.good("clock", "as the server's");
        }
    }

    fn transport(&mut self, location: &Location) {
        let Location::S3(place) = location else {
            return;
        };
        match place.endpoint.as_deref() {
            Some(endpoint) if endpoint.starts_with("http://") => self.advise(
                "transport",
                "plain HTTP",
                "contents and names are encrypted all the same, and requests are signed; who listens sees when how much is moved",
            ),
            _ => self.good("transport", "TLS, with a certificate that is trusted"),
        }
    }

    fn good(&mut self, what: &'static str, found: impl Display) {
        self.note(what, Verdict::Good, found, "");
    }

    fn advise(&mut self, what: &'static str, found: impl Display, follows: &str) {
        self.note(what, Verdict::Advice, found, follows);
    }

    fn bad(&mut self, what: &'static str, found: impl Display, follows: &str) {
        self.note(what, Verdict::Bad, found, follows);
    }

    fn note(&mut self, what: &'static str, verdict: Verdict, found: impl Display, follows: &str) {
        self.findings.push(Finding {
            what,
            verdict,
            found: found.to_string(),
            follows: follows.to_owned(),
        });
    }

    /// The answer; a failure is bad and ends the trial.
    fn unless<T>(
        &mut self,
        what: &'static str,
        answer: Result<T, Error>,
        follows: &str,
    ) -> Result<T, Stop> {
        answer.map_err(|error| {
            self.bad(what, error, follows);
            Stop
        })
    }
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(format!("{PLACE}{name}"))
}

/// Whether the store has refused for want of a right.
fn is_denied<T>(answer: &Result<T, Error>) -> bool {
    answer
        .as_ref()
        .is_err_and(|error| error.kind == Kind::Denied)
}
