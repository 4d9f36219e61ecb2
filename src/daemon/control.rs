//! The control socket of a live mount: one line of JSON asks, one line answers.
//!
//! The socket lies in the volume's state directory, which only its owner can enter. Both ends are here, side by side: the
//! server runs in the background process, the client in `umount`, `sync`, `snapshot`, `status` and the next mount.

use std::fs::{File, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinSet;

use super::Error;
use super::status::Status;

/// The socket's name in a volume's state directory.
const SOCKET: &str = "control.sock";
/// Longer than any request or answer that either end writes.
const LINE_LEN_MAX: u64 = 64 << 10;
/// Requests served at once: a person, a script and a monitor, with room to spare. Others wait in the socket's own queue.
const CONNECTIONS_MAX: usize = 16;
/// Who connects and says nothing is cut off after this.
const REQUEST_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long a process that ends waits for its last answers to be written: they are ready by then.
const LAST_ANSWERS_WAIT_MAX: Duration = Duration::from_secs(5);
/// A status takes no longer than this, whatever else goes on.
const STATUS_WAIT_MAX: Duration = Duration::from_secs(10);

/// What can be asked of a live mount.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How it stands.
    Status,
    /// Answer when everything written before is in the repository.
    Sync {
        /// Give up after so many milliseconds; never if absent.
        timeout_ms: Option<u64>,
    },
    /// Make a snapshot now; answer with its id when it is in the repository.
    Snapshot {
        /// Its name; empty for none.
        name: String,
    },
    /// Seal and capture what is owed, unmount, and end. With `publish`, only after all of it is in the repository.
    Stop {
        /// Whether to wait for the repository.
        publish: bool,
    },
    /// Stop uploading after the object at hand and end, so that another process can go on.
    HandOver,
}

/// What comes back.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Snapshot`]: its id.
    Snapshot(String),
    /// To the others.
    Done,
    /// It could not be done.
    Failed {
        /// One line.
        message: String,
        /// Exit code.
        exit: u8,
    },
}

/// The live mount behind the socket.
#[async_trait]
pub trait Live: Send + Sync {
    /// Carries out one request. Failures are [`Answer::Failed`].
    async fn answer(&self, request: Request) -> Answer;
}

/// A listening socket. Dropping it removes the socket's file.
pub struct Server {
    listener: tokio::net::UnixListener,
    path: PathBuf,
}

impl Server {
    /// Binds the socket in `state_dir`. The caller holds the volume's lock, so that a socket found there is a dead one.
    /// Must be called within a runtime.
    pub fn bind(state_dir: &Path) -> Result<Self, Error> {
        let path = state_dir.join(SOCKET);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &path)(error));
            }
            _ => {}
        }
        let bind = || {
            let (_dir, short) = short_path(state_dir)?;
            let listener = UnixListener::bind(short)?;
            std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
            listener.set_nonblocking(true)?;
            tokio::net::UnixListener::from_std(listener)
        };
        let listener = bind().map_err(Error::io("bind", &path))?;
        Ok(Self { listener, path })
    }

    /// Answers requests until `ending` resolves (its sender may simply be dropped); then takes no more, and finishes the
    /// answers under way within [`LAST_ANSWERS_WAIT_MAX`].
    pub async fn serve(self, live: Arc<dyn Live>, mut ending: oneshot::Receiver<()>) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.accept(&slots) => accepted,
                _ = &mut ending => break,
            };
            while connections.try_join_next().is_some() {}
            match accepted {
                Ok((stream, slot)) => {
                    let live = live.clone();
                    connections.spawn(async move {
                        if let Err(error) = serve_one(stream, live).await {
                            tracing::debug!("control connection ended: {error}");
                        }
                        drop(slot);
                    });
                }
                Err(error) => {
                    // Out of descriptors, most likely: others must give some back first.
                    tracing::warn!("control socket: {error}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
        drop(self);
        let finish = async { while connections.join_next().await.is_some() {} };
        // Who is not answered by then finds the connection closed.
        let _ = tokio::time::timeout(LAST_ANSWERS_WAIT_MAX, finish).await;
    }

    async fn accept(
        &self,
        slots: &Arc<Semaphore>,
    ) -> io::Result<(tokio::net::UnixStream, OwnedSemaphorePermit)> {
        let slot = slots.clone().acquire_owned().await;
        let slot = slot.map_err(io::Error::other)?;
        let (stream, _) = self.listener.accept().await?;
        Ok((stream, slot))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Best effort: the next mount removes what is left.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn serve_one(stream: tokio::net::UnixStream, live: Arc<dyn Live>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut read = tokio::io::BufReader::new(read.take(LINE_LEN_MAX));
    tokio::time::timeout(REQUEST_WAIT_MAX, read.read_line(&mut line))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let answer = match serde_json::from_str(&line) {
        Ok(request) => tokio::select! {
            answer = live.answer(request) => answer,
            // Who has hung up is owed no answer: a wait for the repository must not outlive its waiter.
            () = hung_up(&mut read) => return Ok(()),
        },
        Err(error) => Answer::Failed {
            message: format!("request not understood: {error}"),
            exit: 2,
        },
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    write.write_all(&text).await
}

async fn hung_up(read: &mut (impl tokio::io::AsyncRead + Unpin)) {
    let mut byte = [0];
    while matches!(read.read(&mut byte).await, Ok(1..)) {}
}

/// The asking end. Blocking.
pub struct Client {
    stream: UnixStream,
    path: PathBuf,
}

impl Client {
    /// Connects to the live mount whose state lies in `state_dir`. Fails where none is running.
    pub fn connect(state_dir: &Path) -> Result<Self, Error> {
        let path = state_dir.join(SOCKET);
        let connect = || {
            let (_dir, short) = short_path(state_dir)?;
            UnixStream::connect(short)
        };
        let stream = connect().map_err(Error::io("connect to", &path))?;
        Ok(Self { stream, path })
    }

    /// Asks, and waits for the answer: without limit if `wait_max` is absent. A connection serves one request.
    pub fn ask(&mut self, request: &Request, wait_max: Option<Duration>) -> Result<Answer, Error> {
        let answer = self
            .exchange(request, wait_max)
            .map_err(Error::io("talk to", &self.path))?;
        match answer {
            Answer::Failed { message, exit } => Err(Error::Reported { message, exit }),
            answer => Ok(answer),
        }
    }

    /// How the live mount stands.
    pub fn status(&mut self) -> Result<Status, Error> {
        match self.ask(&Request::Status, Some(STATUS_WAIT_MAX))? {
            Answer::Status(status) => Ok(*status),
            other => Err(Error::Failed(format!(
                "the background process answered {other:?} to a question for its status"
            ))),
        }
    }

    fn exchange(&mut self, request: &Request, wait_max: Option<Duration>) -> io::Result<Answer> {
        self.stream.set_read_timeout(wait_max)?;
        let mut text = serde_json::to_vec(request)?;
        text.push(b'\n');
        self.stream.write_all(&text)?;
        let mut line = String::new();
        BufReader::new((&self.stream).take(LINE_LEN_MAX)).read_line(&mut line)?;
        if !line.ends_with('\n') {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the background process ended before it answered",
            ));
        }
        Ok(serde_json::from_str(&line)?)
    }
}

/// A socket's path may have 108 bytes only, and a state directory may be deep: goes through an open descriptor of the
/// directory, which must be kept while the path is used.
fn short_path(dir: &Path) -> io::Result<(File, PathBuf)> {
    let dir = File::open(dir)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()));
    Ok((dir, short))
}

#[cfg(test)]
mod tests;
