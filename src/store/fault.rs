//! A store that fails as told, for tests: before the effect, after it, never answering, with damaged bytes, or lying.
//!
//! A test holds the [`Plan`], the code under test holds the [`Faulty`] store. "Every n-th call fails, for every n" is
//! a loop that makes a plan with [`Plan::fail_nth`] until one run ends without a fault having fired.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::id::ObjectKey;
use crate::store::metered::Operation;
use crate::store::{
    Body, Condition, Error, Kind, Listing, ObjectStore, PutOutcome, Store, Version,
};

/// What goes wrong with one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// It fails, and nothing was done.
    FailBefore(Kind),
    /// It is done, and its answer is a failure all the same: an answer lost on its way.
    FailAfter(Kind),
    /// It waits until [`Plan::release`], then goes on as if nothing had been.
    Hang,
    /// Only so many bytes of the object get through: of what is read, or of what is written. No other effect on
    /// requests without a body.
    CutBody(usize),
    /// This bit of the object is flipped (counted from the first byte's lowest, modulo its length): in what is read,
    /// or in what is written. No effect on requests without a body, or an empty one.
    FlipBit(u64),
    /// A write or a removal says that it was done, and was not. No effect on reads.
    Pretend,
    /// A conditional write is done whatever stands there, as on a store that knows no conditions. No effect on other requests.
    IgnoreCondition,
}

/// When a fault strikes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rule {
    /// Which requests it counts; all of them if `None`.
    pub on: Option<Operation>,
    /// How many of these pass first.
    pub skip: u64,
    /// How many it then strikes.
    pub times: u64,
    /// With what.
    pub fault: Fault,
}

/// The faults to come; shared by a test and its stores.
#[derive(Debug)]
pub struct Plan {
    state: Mutex<State>,
    released: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<Rule>,
    seen: u64,
    fired: u64,
}

impl Plan {
    /// No faults yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            released: watch::Sender::new(0),
        })
    }

    /// The `n`-th request (from 0), whichever it is, meets `fault`.
    pub fn fail_nth(n: u64, fault: Fault) -> Arc<Self> {
        let plan = Self::new();
        plan.add(Rule {
            on: None,
            skip: n,
            times: 1,
            fault,
        });
        plan
    }

    /// Adds a rule. Of several that strike the same request, the first added wins, and only it counts a strike.
    pub fn add(&self, rule: Rule) {
        self.state.lock().rules.push(rule);
    }

    /// Forgets all rules. Requests that hang go on hanging.
    pub fn clear(&self) {
        self.state.lock().rules.clear();
    }

    /// Lets every request that hangs now go on.
    pub fn release(&self) {
        self.released.send_modify(|count| *count += 1);
    }

    /// How many requests there have been.
    pub fn seen(&self) -> u64 {
        self.state.lock().seen
    }

    /// How many faults have struck.
    pub fn fired(&self) -> u64 {
        self.state.lock().fired
    }

    /// Counts one request; what is to happen to it.
    fn next(&self, operation: Operation) -> Option<Fault> {
        let mut state = self.state.lock();
        state.seen += 1;
        let mut struck = None;
        for rule in &mut state.rules {
            if rule.on.is_some_and(|on| on != operation) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
            } else if rule.times > 0 && struck.is_none() {
                rule.times -= 1;
                struck = Some(rule.fault);
            }
        }
        state.fired += u64::from(struck.is_some());
        struck
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Faulty {
    inner: Store,
    plan: Arc<Plan>,
}

impl Faulty {
    /// Passes requests to `inner` unless `plan` has something in mind for them.
    pub fn new(inner: Store, plan: Arc<Plan>) -> Self {
        Self { inner, plan }
    }

    /// Counts a request and fails or holds it up where that is planned; what else is to happen is returned.
    async fn begin(&self, operation: Operation) -> Result<Option<Fault>, Error> {
        // Subscribed before the plan is asked, so that a release in between is not missed.
        let mut released = self.plan.released.subscribe();
        match self.plan.next(operation) {
            Some(Fault::FailBefore(kind)) => Err(injected(operation, kind)),
            Some(Fault::Hang) => {
                // The plan lives as long as this store, and with it the sender.
                let _ = released.changed().await;
                Ok(None)
            }
            fault => Ok(fault),
        }
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn put(&self, key: &ObjectKey, body: Body) -> Result<(), Error> {
        let fault = self.begin(Operation::Put).await?;
        if fault == Some(Fault::Pretend) {
            return Ok(());
        }
        let done = self.inner.put(key, damage_body(fault, body).await?).await;
        lose_answer(Operation::Put, fault, done)
    }

    async fn put_if(
        &self,
        key: &ObjectKey,
        body: Body,
        condition: Condition,
    ) -> Result<PutOutcome, Error> {
        let fault = self.begin(Operation::PutIf).await?;
        if fault == Some(Fault::Pretend) {
            return Ok(PutOutcome::Done);
        }
        if fault == Some(Fault::IgnoreCondition) {
            return self.inner.put(key, body).await.map(|()| PutOutcome::Done);
        }
        let body = damage_body(fault, body).await?;
        let done = self.inner.put_if(key, body, condition).await;
        lose_answer(Operation::PutIf, fault, done)
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes, Error> {
        let fault = self.begin(Operation::GetRange).await?;
        let done = self.inner.get_range(key, range).await;
        lose_answer(Operation::GetRange, fault, done).map(|bytes| damage(fault, bytes))
    }

    async fn get(&self, key: &ObjectKey, len_max: u64) -> Result<(Bytes, Version), Error> {
        let fault = self.begin(Operation::Get).await?;
        let done = self.inner.get(key, len_max).await;
        let (bytes, version) = lose_answer(Operation::Get, fault, done)?;
        Ok((damage(fault, bytes), version))
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: usize,
    ) -> Result<Listing, Error> {
        let fault = self.begin(Operation::List).await?;
        let done = self.inner.list(prefix, after, limit).await;
        lose_answer(Operation::List, fault, done)
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), Error> {
        let fault = self.begin(Operation::Delete).await?;
        if fault == Some(Fault::Pretend) {
            return Ok(());
        }
        lose_answer(Operation::Delete, fault, self.inner.delete(key).await)
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<u64>, Error> {
        let fault = self.begin(Operation::Head).await?;
        lose_answer(Operation::Head, fault, self.inner.head(key).await)
    }
}

fn lose_answer<T>(
    operation: Operation,
    fault: Option<Fault>,
    done: Result<T, Error>,
) -> Result<T, Error> {
    match fault {
        Some(Fault::FailAfter(kind)) => done.and(Err(injected(operation, kind))),
        _ => done,
    }
}

async fn damage_body(fault: Option<Fault>, body: Body) -> Result<Body, Error> {
    match fault {
        Some(Fault::CutBody(_) | Fault::FlipBit(_)) => {
            let bytes = body.into_bytes("damage what is put").await?;
            Ok(Body::Bytes(damage(fault, bytes)))
        }
        _ => Ok(body),
    }
}

fn damage(fault: Option<Fault>, bytes: Bytes) -> Bytes {
    match fault {
        Some(Fault::CutBody(len)) => bytes.slice(..len.min(bytes.len())),
        Some(Fault::FlipBit(bit)) if !bytes.is_empty() => {
            let bit = bit % (bytes.len() as u64 * 8);
            let mut damaged = bytes.to_vec();
            damaged[(bit / 8) as usize] ^= 1 << (bit % 8);
            damaged.into()
        }
        _ => bytes,
    }
}

fn injected(operation: Operation, kind: Kind) -> Error {
    Error::new(kind, format!("{operation:?}"), "injected by a test")
}

#[cfg(test)]
mod tests;
