//! The bridge from a FUSE request to a task: the only place where blocking code and tokio meet.
//!
//! A front that answers from the network (`snapshot`) moves the reply into a task here. The live mount does not use it.

use std::future::Future;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;

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

    /// Runs `work` with `reply` in a task, and waits for room first: called on a FUSE loop thread, never inside a task.
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
        let answered = work(reply);
        self.runtime.spawn(async move {
            answered.await;
            drop(permit);
        });
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
        bridge.answer(Reply(said, false), |reply| async move { reply.ok() });
        assert_eq!(heard.recv(), Ok("EIO"));
    }
}
