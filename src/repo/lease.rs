//! Who may write: claims, generations and the lease.

use std::time::Duration;

use crate::clock::Clock;
use crate::id::{Generation, SessionId};
use crate::repo::commits::Found;
use crate::repo::{Error, Volume};

/// The right to publish into a volume.
pub struct Writership {/* generation, session, store handles */}

impl Writership {
    /// The generation that commits of this writer carry.
    pub fn generation(&self) -> Generation {
        todo!()
    }
    /// The session it writes under.
    pub fn session(&self) -> SessionId {
        todo!()
    }
    /// Makes the lease longer. [`Error::Fenced`] if somebody has taken it: publishing must stop for good.
    pub async fn renew(&self, _clock: &dyn Clock) -> Result<(), Error> {
        todo!()
    }
    /// Whether nobody has claimed a higher generation, asked of the store (one LIST): called before each commit is put
    /// when the lease may have run out.
    pub async fn verify(&self) -> Result<(), Error> {
        todo!()
    }
    /// Gives the lease back.
    pub async fn release(&self) -> Result<(), Error> {
        todo!()
    }
}

impl Volume {
    /// Takes the lease and claims the volume from `base` on (its head, or none). [`Error::Busy`] names the holder if
    /// another's lease is still running; a lease of the same `owner` (machine and state directory) is taken over at once.
    pub async fn claim(
        &self,
        _session: SessionId,
        _owner: &str,
        _base: Option<&Found>,
        _lease: Duration,
        _clock: &dyn Clock,
    ) -> Result<Writership, Error> {
        todo!()
    }
}
