//! What the volume owes itself: names, or everything, that must be looked at again before a commit can be an exact moment.
//!
//! Two things lead here. A request that the source has carried out could not be noted (its name is then owed), and a change set
//! had to be dropped for want of memory (then everything is). The debt is made under the pin of the request, so a seal that has
//! drained its epoch sees it. It is paid by `reconcile`, under a guard too: an epoch is exact if each debt of it and of those
//! before was paid in it or before. Until then only incomplete commits are made, and `status` says why.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;

use parking_lot::Mutex;

use crate::epoch::Epochs;
use crate::id::{EpochNo, FileId};
use crate::source::Node;

/// Names that are owed one by one, about a MiB; with more of them everything is.
const NAMES_MAX: usize = 4096;

/// What has to be looked at again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Debt {
    /// These names: directory, name.
    Names(Vec<(Node, Vec<u8>)>),
    /// Everything, against the newest commit as it is after [`Epochs::begin_rescan`].
    Everything,
}

/// The debts.
#[derive(Default)]
pub(crate) struct Owed {
    state: Mutex<State>,
    /// Whether any is unpaid: looked at by the flusher all the time.
    owing: AtomicBool,
}

#[derive(Default)]
struct State {
    names: BTreeMap<(FileId, Vec<u8>), NameDebt>,
    everything: Option<Term>,
    /// A scan that began after everything was owed is under way.
    rescanning: bool,
    why: String,
    payer: Option<Thread>,
}

struct NameDebt {
    dir: Node,
    term: Term,
}

/// The epoch that a debt was made in, and the one that it was paid in.
#[derive(Clone, Copy)]
struct Term {
    since: EpochNo,
    paid: Option<EpochNo>,
}

impl Term {
    fn since(epoch: EpochNo) -> Self {
        Self {
            since: epoch,
            paid: None,
        }
    }

    /// Whether `epoch` lacks something because of it.
    fn burdens(&self, epoch: EpochNo) -> bool {
        self.since <= epoch && self.paid.is_none_or(|paid| paid > epoch)
    }

    /// Whether every epoch from `epoch` on holds what was paid.
    fn is_over(&self, epoch: EpochNo) -> bool {
        self.paid.is_some_and(|paid| paid <= epoch)
    }
}

impl State {
    fn is_owing(&self) -> bool {
        let open = |term: &Term| term.paid.is_none();
        self.everything.as_ref().is_some_and(open)
            || self.names.values().any(|debt| open(&debt.term))
    }
}

impl Owed {
    /// `name` in `dir` is not known to a change set.
    pub(super) fn owe_name(&self, dir: &Node, name: &[u8], epoch: EpochNo, why: &str) {
        self.change(why, |state| {
            if state.names.len() >= NAMES_MAX {
                state.everything = Some(Term::since(epoch));
                state.rescanning = false;
                return;
            }
            let debt = NameDebt {
                dir: dir.clone(),
                term: Term::since(epoch),
            };
            state.names.insert((dir.id, name.to_vec()), debt);
        });
    }

    /// A change set of `epoch` was dropped.
    pub(super) fn owe_everything(&self, epoch: EpochNo, why: &str) {
        self.change(why, |state| {
            state.everything = Some(Term::since(epoch));
            state.rescanning = false;
        });
    }

    fn change(&self, why: &str, change: impl FnOnce(&mut State)) {
        tracing::warn!(
            why,
            "will be looked at again; no exact snapshot before that"
        );
        let mut state = self.state.lock();
        change(&mut state);
        state.why = why.to_owned();
        self.owing.store(true, Ordering::SeqCst);
        if let Some(payer) = &state.payer {
            payer.unpark();
        }
    }

    /// What was owed of a name has been said in `epoch`.
    pub(super) fn paid_name(&self, dir: FileId, name: &[u8], epoch: EpochNo) {
        let mut state = self.state.lock();
        if let Some(debt) = state.names.get_mut(&(dir, name.to_vec())) {
            debt.term.paid.get_or_insert(epoch);
        }
        self.owing.store(state.is_owing(), Ordering::SeqCst);
    }

    /// A scan has ended while `epoch` was open.
    pub(super) fn scanned(&self, epoch: EpochNo) {
        let mut state = self.state.lock();
        if std::mem::take(&mut state.rescanning)
            && let Some(everything) = &mut state.everything
        {
            everything.paid.get_or_insert(epoch);
        }
        self.owing.store(state.is_owing(), Ordering::SeqCst);
    }

    /// Whether a scan is owed.
    pub(super) fn owes_everything(&self) -> bool {
        let state = self.state.lock();
        state.everything.is_some_and(|term| term.paid.is_none())
    }

    /// Whether a drained epoch is an exact moment. What can burden no later one is forgotten.
    pub(super) fn is_exact(&self, epoch: EpochNo) -> bool {
        let mut state = self.state.lock();
        let burdened = state.everything.is_some_and(|term| term.burdens(epoch))
            || state.names.values().any(|debt| debt.term.burdens(epoch));
        if !burdened {
            state.everything = state.everything.filter(|term| !term.is_over(epoch));
            state.names.retain(|_, debt| !debt.term.is_over(epoch));
        }
        !burdened
    }
}

impl Epochs {
    /// Whether something must be looked at again before a commit can be exact.
    pub fn is_owing(&self) -> bool {
        self.owed.owing.load(Ordering::SeqCst)
    }

    /// A scan could not look at all that the last commit has: what was in doubt when this life began is so for the next one, too.
    pub fn spare_earlier_doubts(&self) {
        self.journal.spare_earlier();
    }

    /// Why, for `status`; `None` if nothing is owed.
    pub fn why_owing(&self) -> Option<String> {
        self.is_owing().then(|| self.owed.state.lock().why.clone())
    }

    /// What is owed now. `None` if nothing is; then the calling thread is unparked when something is.
    pub fn debt(&self) -> Option<Debt> {
        let mut state = self.owed.state.lock();
        state.payer = Some(std::thread::current());
        let open = |term: &Term| term.paid.is_none();
        if state.everything.as_ref().is_some_and(open) {
            return Some(Debt::Everything);
        }
        let unpaid = state.names.iter().filter(|(_, debt)| open(&debt.term));
        let names: Vec<_> = unpaid
            .map(|((_, name), debt)| (debt.dir.clone(), name.clone()))
            .collect();
        (!names.is_empty()).then_some(Debt::Names(names))
    }

    /// From here on a scan against what is the newest commit *after* this call pays all that is owed now.
    pub fn begin_rescan(&self) {
        self.owed.state.lock().rescanning = true;
    }

    /// A change set of `epoch` was dropped. What a scan had seen must be seen again.
    pub(super) fn owe_everything(&self, epoch: EpochNo, why: &str) {
        // As one step: neither does a scan end in between, which would believe that nothing is owed, nor does one begin, whose notes
        // would be forgotten.
        let mut scan = self.scan.lock();
        self.forget_seen(&mut scan);
        self.owed.owe_everything(epoch, why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Handle;

    fn dir() -> Node {
        Node {
            id: FileId(1),
            handle: Handle(Box::from(*b"dir")),
        }
    }

    #[test]
    fn an_epoch_is_exact_again_when_its_debts_were_paid_in_it() {
        let owed = Owed::default();
        assert!(owed.is_exact(EpochNo(4)));
        owed.owe_name(&dir(), b"lost", EpochNo(5), "a test");
        assert!(owed.is_exact(EpochNo(4)), "the epoch before owes nothing");
        assert!(!owed.is_exact(EpochNo(5)));
        owed.paid_name(FileId(1), b"lost", EpochNo(6));
        assert!(!owed.is_exact(EpochNo(5)), "said in the next one only");
        assert!(owed.is_exact(EpochNo(6)));
        assert!(owed.state.lock().names.is_empty());
    }

    #[test]
    fn only_a_scan_that_began_afterwards_pays_for_everything() {
        let owed = Owed::default();
        owed.state.lock().rescanning = true;
        owed.owe_everything(EpochNo(5), "a test");
        owed.scanned(EpochNo(6));
        assert!(!owed.is_exact(EpochNo(6)), "it was under way already");
        owed.state.lock().rescanning = true;
        owed.scanned(EpochNo(7));
        assert!(!owed.is_exact(EpochNo(6)));
        assert!(owed.is_exact(EpochNo(7)));
    }

    #[test]
    fn too_many_names_are_everything() {
        let owed = Owed::default();
        for n in 0..=NAMES_MAX {
            owed.owe_name(&dir(), format!("{n}").as_bytes(), EpochNo(1), "a test");
        }
        assert!(owed.state.lock().everything.is_some());
        assert_eq!(owed.state.lock().names.len(), NAMES_MAX);
    }
}
