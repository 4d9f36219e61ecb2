//! The bridge from a FUSE request to a task: the only place where blocking code and tokio meet.
//!
//! A front that answers from the network (`snapshot`) moves the reply into a task here. What needs no network is answered before it becomes
//! one, on the loop thread itself: most that is asked of a snapshot is in a cache, and waking another thread for it would
//! take longer than the answer. The live mount does not use it.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::blocking;

/// Requests that may be in tasks at once. The kernel keeps up to a few hundred background reads per mount; beyond this many
/// its own queue is the better place to wait, and at 1 MiB a read this bounds the replies in memory.
pub const IN_FLIGHT_MAX: usize = 64;

/// Where requests are answered asynchronously.
#[derive(Clone, Debug)]
pub struct Bridge {
    runtime: Handle,
    room: Arc<Semaphore>,
}

impl Bridge {
    /// Tasks run on `runtime`, at most `in_flight_max` of them at once.
    pub fn new(runtime: Handle, in_flight_max: usize) -> Self {
        Self {
            runtime,
            room: Arc::new(Semaphore::new(in_flight_max)),
        }
    }

    /// Runs `work` with `reply`: here as far as it goes without waiting for others, the rest in a task. Waits for room first. Called on
    /// a FUSE loop thread, never inside a task.
    ///
    /// A reply that is dropped, because the task panicked, was cancelled or the runtime is gone, tells the program `EIO`.
    pub fn answer<Reply, Work, Answered>(&self, reply: Reply, work: Work)
    where
        Reply: Send + 'static,
        Work: FnOnce(Reply) -> Answered,
        Answered: Future<Output = ()> + Send + 'static,
    {
        let room = Arc::clone(&self.room);
        let permit = match room.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => match self.runtime.block_on(room.acquire_owned()) {
                Ok(permit) => permit,
                // Never closed; but if it were, dropping the reply is the right answer.
                Err(_) => return,
            },
        };
        // There is room for it by now: begun, it may hold what others wait for, and must be gone on with.
        let mut answered = Box::pin(work(reply));
        if self.begin(answered.as_mut()).is_pending() {
            self.runtime.spawn(async move {
                answered.await;
                drop(permit);
            });
        }
    }

    /// Goes on with it once, on this thread, which may wait for a disk. Nobody is woken for what it waits for then: it is asked again, by
    /// the task that it becomes. A panic ends it as it would end a task.
    fn begin(&self, answered: Pin<&mut impl Future<Output = ()>>) -> Poll<()> {
        let _runtime = self.runtime.enter();
        let mut context = Context::from_waker(Waker::noop());
        let begun = catch_unwind(AssertUnwindSafe(|| {
            blocking::where_waiting_is_fine(|| answered.poll(&mut context))
        }));
        begun.unwrap_or(Poll::Ready(()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    /// Stands for a reply: says on which way it went.
    struct Reply(mpsc::Sender<&'static str>, bool);

    impl Reply {
        fn ok(mut self) {
            self.1 = true;
            self.0.send("ok").expect("the test listens");
        }
    }

    impl Drop for Reply {
        fn drop(&mut self) {
            if !self.1 {
                self.0.send("EIO").expect("the test listens");
            }
        }
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .build()
            .expect("a runtime")
    }

    #[test]
    fn a_panicking_task_still_answers() {
        let runtime = runtime();
        let bridge = Bridge::new(runtime.handle().clone(), 2);
        let (said, heard) = mpsc::channel();
        bridge.answer(Reply(said.clone(), false), |reply| async move {
            let _reply = reply;
            panic!("a bug");
        });
        assert_eq!(heard.recv(), Ok("EIO"));
        bridge.answer(Reply(said.clone(), false), |reply| async move {
            let _reply = reply;
            tokio::task::yield_now().await;
            panic!("a bug in what became a task");
        });
        assert_eq!(heard.recv(), Ok("EIO"));
        bridge.answer(Reply(said, false), |reply| async move { reply.ok() });
        assert_eq!(heard.recv(), Ok("ok"));
    }

    #[test]
    fn no_more_than_the_bound_are_in_flight() {
        let runtime = runtime();
        let bridge = Bridge::new(runtime.handle().clone(), 3);
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (said, heard) = mpsc::channel();
        for _ in 0..50 {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            bridge.answer(Reply(said.clone(), false), |reply| async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                now.fetch_sub(1, Ordering::SeqCst);
                reply.ok();
            });
        }
        assert!((0..50).all(|_| heard.recv() == Ok("ok")));
        assert!(most.load(Ordering::SeqCst) <= 3);
    }

    #[test]
    fn after_the_runtime_is_gone_the_answer_is_an_error() {
        let runtime = runtime();
        let bridge = Bridge::new(runtime.handle().clone(), 2);
        drop(runtime);
        let (said, heard) = mpsc::channel();
        bridge.answer(Reply(said, false), |reply| async move {
            tokio::task::yield_now().await;
            reply.ok();
        });
        assert_eq!(heard.recv(), Ok("EIO"));
    }

    #[test]
    fn what_is_at_hand_is_answered_on_the_thread_that_asked() {
        let runtime = runtime();
        let bridge = Bridge::new(runtime.handle().clone(), 2);
        let (said, heard) = mpsc::channel();
        bridge.answer((), |()| async move {
            let worked = blocking::run(|| std::thread::current().id()).await;
            said.send(worked).expect("the test listens");
        });
        assert_eq!(heard.try_recv(), Ok(Some(std::thread::current().id())));
    }

    /// What was waited for came when nobody was to be woken.
    #[test]
    fn what_is_not_at_hand_is_waited_for_in_a_task() {
        let runtime = runtime();
        let bridge = Bridge::new(runtime.handle().clone(), 2);
        let (said, heard) = mpsc::channel();
        let (give, given) = tokio::sync::oneshot::channel();
        bridge.answer(Reply(said, false), |reply| async move {
            given.await.expect("it is given");
            reply.ok();
        });
        give.send(()).expect("it is waited for");
        assert_eq!(heard.recv(), Ok("ok"));
    }
}
