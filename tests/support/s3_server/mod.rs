//! An S3 server in memory for tests: real HTTP and signatures (`s3s`), atomic conditional writes, faults on demand.
//!
//! It stands for a well-behaved S3. It is not for speed and not for keeping anything: all objects are gone when it is
//! dropped. Tests start one each; `s3_server_main.rs` runs one for scripts.

#![allow(
    dead_code,
    reason = "each program that includes this uses another part of it"
)]

mod bucket;
mod faults;
mod gate;

#[allow(
    unused_imports,
    reason = "not every program that includes this injects faults"
)]
pub(crate) use faults::{Fault, Rule};

use std::net::SocketAddr;
use std::sync::Arc;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use s3s::service::S3ServiceBuilder;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use bucket::Buckets;
use faults::{Faults, Front};
use gate::Gate;

/// A running server; it stops when dropped.
pub(crate) struct S3Server {
    address: SocketAddr,
    bucket: String,
    buckets: Arc<Buckets>,
    faults: Arc<Faults>,
    gate: Gate,
    /// `http` or `https`.
    scheme: &'static str,
    /// A runtime of its own, so that a test's runtime may block or be torn down; taken when dropped.
    runtime: Option<Runtime>,
}

/// What a client needs to know to be let in.
pub(crate) const ACCESS_KEY: &str = "AKIDTEST";
/// Its secret half. It protects nothing.
pub(crate) const SECRET_KEY: &str = "test-secret";

impl S3Server {
    /// Starts a server on a free port of this machine, with one empty bucket.
    pub(crate) fn start(bucket: &str) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), bucket)
            .expect("a free port on the loopback interface")
    }

    /// Starts a server that speaks TLS, and gives the certificate (PEM) of the authority that it was made up with.
    pub(crate) fn start_tls(bucket: &str) -> (Self, String) {
        let (tls, authority) = gate::certificate();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Self::start_with(address, bucket, Some(tls));
        (server.expect("a free port"), authority)
    }

    /// Starts a server at `address`.
    pub(crate) fn start_at(address: SocketAddr, bucket: &str) -> std::io::Result<Self> {
        Self::start_with(address, bucket, None)
    }

    fn start_with(
        address: SocketAddr,
        bucket: &str,
        tls: Option<TlsAcceptor>,
    ) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let buckets = Arc::new(Buckets::new(bucket));
        let faults = Arc::new(Faults::default());
        let mut builder = S3ServiceBuilder::new(bucket::Backend(Arc::clone(&buckets)));
        let gate = Gate::new(ACCESS_KEY, SECRET_KEY);
        builder.set_auth(gate.clone());
        let front = Front::new(builder.build(), Arc::clone(&faults));
        let listener = runtime.block_on_elsewhere(TcpListener::bind(address))?;
        let address = listener.local_addr()?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        runtime.spawn(serve(listener, front, tls));
        Ok(Self {
            gate,
            scheme,
            address,
            bucket: bucket.to_owned(),
            buckets,
            faults,
            runtime: Some(runtime),
        })
    }

    /// `http://127.0.0.1:port`.
    pub(crate) fn endpoint(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A location within the bucket, as a person would write it.
    pub(crate) fn location(&self, prefix: &str) -> String {
        self.location_through(self.address, prefix)
    }

    /// The same by way of a proxy at `address`.
    pub(crate) fn location_through(&self, address: SocketAddr, prefix: &str) -> String {
        format!(
            "s3://{}/{prefix}?endpoint={}://{address}&region=us-east-1",
            self.bucket, self.scheme,
        )
    }

    /// What a process needs in its environment to be let in.
    pub(crate) fn environment(&self) -> [(&'static str, &'static str); 2] {
        [
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ]
    }

    /// Adds a fault.
    pub(crate) fn inject(&self, rule: Rule) {
        self.faults.add(rule);
    }

    /// Forgets all faults; requests that hang go on.
    pub(crate) fn heal(&self) {
        self.faults.heal();
    }

    /// How many requests have come in, failed ones included.
    pub(crate) fn requests(&self) -> u64 {
        self.faults.requests()
    }

    /// How many of them were of `method`.
    pub(crate) fn requests_of(&self, method: &hyper::Method) -> u64 {
        self.faults.requests_of(method)
    }

    /// How many bytes of objects it has given out.
    pub(crate) fn answered(&self) -> u64 {
        self.faults.answered()
    }

    /// From now on this key is let in, and no other.
    pub(crate) fn change_keys(&self, access: &str, secret: &str) {
        self.gate.change(access, secret);
    }

    /// Storage class and tags of each object.
    pub(crate) fn extras(&self) -> Vec<(Option<String>, Option<String>)> {
        self.buckets.extras(&self.bucket)
    }

    /// How many faults have struck.
    pub(crate) fn faults_struck(&self) -> u64 {
        self.faults.struck()
    }

    /// How many requests it has taken in whole and not answered until it was healed.
    pub(crate) fn held(&self) -> u64 {
        self.faults.held()
    }

    /// From now on it ignores the conditions of writes, as many servers do.
    pub(crate) fn ignore_conditions(&self) {
        self.buckets.ignore_conditions();
    }

    /// How many objects were put without a checksum in the request's signed header.
    pub(crate) fn unchecked_puts(&self) -> u64 {
        self.buckets.unchecked()
    }

    /// Bytes of objects that it was sent and has looked at, whether it took them or not.
    pub(crate) fn received_bytes(&self) -> u64 {
        self.buckets.received()
    }

    /// The raw objects, by full key.
    pub(crate) fn objects(&self) -> Vec<(String, bytes::Bytes)> {
        self.buckets.objects(&self.bucket)
    }

    /// Puts an object behind everybody's back, or takes it away.
    pub(crate) fn tamper(&self, key: &str, bytes: Option<bytes::Bytes>) {
        self.buckets.tamper(&self.bucket, key, bytes);
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.faults.heal();
        if let Some(runtime) = self.runtime.take() {
            // Tests drop it inside their own runtime, where waiting is not allowed.
            runtime.shutdown_background();
        }
    }
}

async fn serve(listener: TcpListener, front: Front, tls: Option<TlsAcceptor>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        // Small answers must not wait for Nagle's algorithm: it would add 40 ms to each.
        let _ = stream.set_nodelay(true);
        let (front, tls) = (front.clone(), tls.clone());
        tokio::spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new()).http1_only();
            // A client that goes away, or a connection closed by a fault, is no error of the server's.
            match tls {
                None => drop(server.serve_connection(TokioIo::new(stream), front).await),
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        drop(server.serve_connection(TokioIo::new(stream), front).await);
                    }
                }
            }
        });
    }
}

/// Waiting for a runtime from a thread that may be part of another one.
trait BlockOnElsewhere {
    fn block_on_elsewhere<T: Send>(&self, work: impl Future<Output = T> + Send) -> T;
}

impl BlockOnElsewhere for Runtime {
    fn block_on_elsewhere<T: Send>(&self, work: impl Future<Output = T> + Send) -> T {
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| self.block_on(work));
            waiting.join().expect("binding a port does not panic")
        })
    }
}
