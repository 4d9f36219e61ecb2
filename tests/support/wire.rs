//! The network between a program and the tests' S3 server: a proxy for TCP that can be torn down, resets connections, swallows or
//! spoils what it is given to carry.
//!
//! It does what no server can do to its clients. What a server answers wrong is `s3_server`'s part, in front of which this lies: bytes
//! are passed on as they are, so that signatures stay right. A request begins with the first bytes that a client sends after an answer.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// What is carried at once.
const STEP: usize = 64 << 10;
/// Connections that may wait to be taken: more than one program has.
const BACKLOG: u32 = 256;

/// What happens to a request on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mishap {
    /// The connection is reset (RST) with the request's first bytes.
    Reset,
    /// Nothing gets through on this connection any more in either direction, and nobody is told.
    Swallow,
    /// One bit of the request's body is flipped.
    FlipBit,
}

/// A proxy that runs until it is dropped.
pub(crate) struct Wire {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Keeps the port ours while nothing listens there.
    _port: TcpSocket,
    /// Of its own, so that a test may block; taken when dropped.
    runtime: Option<Runtime>,
}

struct Shared {
    server: SocketAddr,
    state: Mutex<State>,
    /// Whether the wire is there at all. Connections and the listener end when it is not.
    up: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    /// What happens, to each how-manieth request, and how often at most.
    mishap: Option<(Mishap, u64, u64)>,
    requests: u64,
    struck: u64,
}

impl Wire {
    /// A wire to `server`, from a free port of this machine.
    pub(crate) fn to(server: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a thread");
        let port = bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let address = port.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            server,
            state: Mutex::default(),
            up: watch::Sender::new(false),
        });
        let wire = Self {
            address,
            shared,
            _port: port,
            runtime: Some(runtime),
        };
        wire.restore();
        wire
    }

    /// Where clients find it.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Each `every`-th request from now on meets `mishap`.
    pub(crate) fn spoil(&self, mishap: Mishap, every: u64) {
        self.spoil_times(mishap, every, u64::MAX);
    }

    /// The `nth` request from now on meets `mishap`, and no other.
    pub(crate) fn spoil_once(&self, mishap: Mishap, nth: u64) {
        self.spoil_times(mishap, nth, 1);
    }

    fn spoil_times(&self, mishap: Mishap, every: u64, times: u64) {
        let mut state = self.shared.state.lock();
        (state.mishap, state.requests) = (Some((mishap, every, times)), 0);
    }

    /// All is well with new requests; what was swallowed stays so.
    pub(crate) fn heal(&self) {
        self.shared.state.lock().mishap = None;
    }

    /// Nobody is there any more: connections break, and new ones are refused.
    pub(crate) fn tear(&self) {
        self.shared.up.send_replace(false);
    }

    /// It is there again.
    pub(crate) fn restore(&self) {
        let runtime = self.runtime.as_ref().expect("taken only when dropped");
        let _inside = runtime.enter();
        // The address may be in use until the last listener is gone, which it is as soon as its task is run.
        let listener = loop {
            match bind(self.address).and_then(|socket| socket.listen(BACKLOG)) {
                Ok(listener) => break listener,
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => std::thread::yield_now(),
                Err(error) => panic!("listen at {}: {error}", self.address),
            }
        };
        self.shared.up.send_replace(true);
        let (shared, mut up) = (Arc::clone(&self.shared), self.shared.up.subscribe());
        runtime.spawn(async move {
            loop {
                let client = tokio::select! {
                    biased;
                    _ = up.wait_for(|up| !up) => return,
                    client = listener.accept() => client,
                };
                if let Ok((client, _)) = client {
                    tokio::spawn(carry_while_up(Arc::clone(&shared), client));
                }
            }
        });
    }

    /// How many requests have met with something.
    pub(crate) fn struck(&self) -> u64 {
        self.shared.state.lock().struck
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A socket at `address`, which others of this wire may share as long as none listens there.
fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn carry_while_up(shared: Arc<Shared>, client: TcpStream) {
    let mut up = shared.up.subscribe();
    // Whichever side ends a connection, or breaks it, ends it for the other.
    tokio::select! {
        _ = up.wait_for(|up| !up) => {}
        _ = carry(&shared, client) => {}
    }
}

async fn carry(shared: &Shared, mut client: TcpStream) -> io::Result<()> {
    let mut server = TcpStream::connect(shared.server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut asked, mut answered) = (vec![0; STEP], vec![0; STEP]);
    let mut request = Request::default();
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let len = read?;
                if len == 0 {
                    return Ok(());
                }
                if !request.begun {
                    request = Request { begun: true, mishap: shared.next(), ..Request::default() };
                }
                match request.mishap {
                    Some(Mishap::Reset) => return client.set_zero_linger(),
                    Some(Mishap::Swallow) => return std::future::pending().await,
                    Some(Mishap::FlipBit) => request.flip(&mut asked[..len]),
                    None => {}
                }
                server.write_all(&asked[..len]).await?;
            }
            read = server.read(&mut answered) => {
                let len = read?;
                if len == 0 {
                    return Ok(());
                }
                request.begun = false;
                client.write_all(&answered[..len]).await?;
            }
        }
    }
}

/// A request as far as it has been carried.
#[derive(Default)]
struct Request {
    begun: bool,
    mishap: Option<Mishap>,
    /// How much has been seen of the empty line that ends its head.
    ending: usize,
    flipped: bool,
}

impl Request {
    /// Flips a bit of the first byte behind the head, once.
    fn flip(&mut self, bytes: &mut [u8]) {
        const END: &[u8] = b"\r\n\r\n";
        for byte in bytes {
            if self.flipped {
                return;
            }
            if self.ending == END.len() {
                *byte ^= 1;
                self.flipped = true;
            } else if *byte == END[self.ending] {
                self.ending += 1;
            } else {
                self.ending = usize::from(*byte == END[0]);
            }
        }
    }
}

impl Shared {
    fn next(&self) -> Option<Mishap> {
        let mut state = self.state.lock();
        state.requests += 1;
        let requests = state.requests;
        let (mishap, every, times) = state.mishap.as_mut()?;
        if *times == 0 || !requests.is_multiple_of(*every) {
            return None;
        }
        *times -= 1;
        let mishap = *mishap;
        state.struck += 1;
        Some(mishap)
    }
}
