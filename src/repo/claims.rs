//! Claims and the lease as objects of the store: listed, read and proven, put. What they mean is in `lineage.rs` (which
//! commits are history) and `lease.rs` (who may write), the only callers beside `commits.rs`.

use bytes::Bytes;

use crate::crypto::VolumeKeys;
use crate::format::claim::{self, BODY_LEN_MAX, Claim, ClaimName, Lease};
use crate::format::frame::FrameKind;
use crate::id::{ObjectKey, VolumeId};
use crate::repo::lineage::Lineage;
use crate::repo::{Error, layout, listing};
use crate::store::{Body, Condition, Kind, PutOutcome, Store, Version};

/// The longest object read: a body, and what encryption puts around it.
const OBJECT_LEN_MAX: u64 = BODY_LEN_MAX as u64 + 1024;

/// One volume's.
#[derive(Clone)]
pub(super) struct Claims {
    volume_name: String,
    keys: VolumeKeys,
    store: Store,
}

impl Claims {
    pub(super) fn new(volume_name: String, keys: VolumeKeys, store: Store) -> Self {
        Self {
            volume_name,
            keys,
            store,
        }
    }

    pub(super) fn volume(&self) -> VolumeId {
        self.keys.volume()
    }

    /// All claims by name, in order.
    pub(super) async fn lineage(&self) -> Result<Lineage, Error> {
        let keys = listing::all(&self.store, &layout::claims_prefix(self.volume())).await?;
        Ok(Lineage::new(self.volume(), &keys))
    }

    /// Reads a claim and proves that it is one: called for each that decides something, since anybody who can write to
    /// the store can make a name.
    pub(super) async fn read(&self, name: &ClaimName) -> Result<Claim, Error> {
        let object = layout::claim(self.volume(), name);
        let got = self.store.get(&object, OBJECT_LEN_MAX).await;
        let (bytes, _) = got.map_err(|error| Error::of_store(&object, error))?;
        let plain = self.decrypt(FrameKind::Claim, &object, &bytes)?;
        let claim = Claim::decode(&plain).map_err(|why| of_body(&object, why))?;
        if claim.name != *name {
            return Err(Error::damaged(&object, "its body states another name"));
        }
        Ok(claim)
    }

    /// Puts a claim under its own name.
    pub(super) async fn put(&self, claim: &Claim) -> Result<PutOutcome, Error> {
        let object = layout::claim(self.volume(), &claim.name);
        let body = self.encrypt(FrameKind::Claim, &object, &claim.encode());
        Ok(self.store.put_if(&object, body, Condition::Absent).await?)
    }

    /// Takes back a claim that was put a moment ago and must not stand.
    pub(super) async fn withdraw(&self, name: &ClaimName) -> Result<(), Error> {
        let object = layout::claim(self.volume(), name);
        Ok(self.store.delete(&object).await?)
    }

    /// The lease as it stands; `None` if there is none.
    pub(super) async fn read_lease(&self) -> Result<Option<(Lease, Version)>, Error> {
        let object = layout::lease(self.volume());
        let (bytes, version) = match self.store.get(&object, OBJECT_LEN_MAX).await {
            Ok(got) => got,
            Err(error) if error.kind == Kind::Missing => return Ok(None),
            Err(error) => return Err(Error::of_store(&object, error)),
        };
        let plain = self.decrypt(FrameKind::Lease, &object, &bytes)?;
        let lease = Lease::decode(&plain).map_err(|why| of_body(&object, why))?;
        Ok(Some((lease, version)))
    }

    /// Writes the lease if it is still what was read as `over` (`None`: there was none).
    pub(super) async fn put_lease(
        &self,
        lease: &Lease,
        over: Option<Version>,
    ) -> Result<PutOutcome, Error> {
        let object = layout::lease(self.volume());
        let body = self.encrypt(FrameKind::Lease, &object, &lease.encode());
        let condition = over.map_or(Condition::Absent, Condition::Is);
        Ok(self.store.put_if(&object, body, condition).await?)
    }

    /// Writes the lease whatever stands there: for the proven writer and for the next one of the same owner, where what stands there is
    /// damaged.
    pub(super) async fn replace_lease(&self, lease: &Lease) -> Result<(), Error> {
        let object = layout::lease(self.volume());
        let body = self.encrypt(FrameKind::Lease, &object, &lease.encode());
        Ok(self.store.put(&object, body).await?)
    }

    /// That somebody else writes this volume.
    pub(super) fn busy(&self, holder: &str) -> Error {
        Error::Busy {
            volume: self.volume_name.clone(),
            holder: holder.to_owned(),
        }
    }

    fn encrypt(&self, kind: FrameKind, object: &ObjectKey, plain: &[u8]) -> Body {
        Body::Bytes(self.keys.encrypt_object(kind, object, plain).into_bytes())
    }

    fn decrypt(
        &self,
        kind: FrameKind,
        object: &ObjectKey,
        bytes: &Bytes,
    ) -> Result<Vec<u8>, Error> {
        let plain = self.keys.decrypt_object(kind, object, bytes);
        plain.map_err(|why| Error::damaged(object, why))
    }
}

fn of_body(object: &ObjectKey, why: claim::Error) -> Error {
    match why {
        claim::Error::Newer(version) => Error::NewerFormat {
            what: object.to_string(),
            feature: u32::from(version),
        },
        claim::Error::Malformed => Error::damaged(object, why),
    }
}
