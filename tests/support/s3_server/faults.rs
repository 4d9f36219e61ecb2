//! Faults in front of the server, as networks and overloaded servers make them: on the level of HTTP, by request.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use futures::future::BoxFuture;
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{Method, Request, StatusCode};
use parking_lot::Mutex;
use s3s::service::S3Service;
use s3s::{Body, HttpError, HttpResponse};
use tokio::sync::watch;

/// What goes wrong with one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// An error answer instead of the effect: status and S3 code, such as 503 and `SlowDown`.
    Status(u16, &'static str),
    /// This answer instead of the effect: status, headers, body.
    Answer(u16, &'static [(&'static str, &'static str)], &'static str),
    /// It is taken in whole, and there is no answer until [`super::S3Server::heal`]; then it goes on as if nothing had been.
    Hang,
    /// All is well, only later by so much: the way to a store that is far away, however much one request moves.
    Late(Duration),
    /// The connection is closed before anything happens.
    Close,
    /// It is done, and then the connection is closed instead of the answer.
    LoseAnswer,
    /// The answer's body breaks off after so many bytes, and the connection with it.
    BreakBody(usize),
    /// The answer's body is shorter than the object, and says so: a lie that HTTP cannot notice.
    ShortBody(usize),
    /// One bit of the answer's body is flipped (counted from the first byte's lowest, modulo its length).
    FlipBit(u64),
    /// A PUT or DELETE is answered with success and not done.
    Pretend,
}

/// When a fault strikes.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    /// Only requests of this method; of all if `None`.
    pub(crate) method: Option<Method>,
    /// Only requests whose path and query contain this.
    pub(crate) contains: String,
    /// How many of these pass first.
    pub(crate) skip: u64,
    /// How many pass between two that it strikes.
    pub(crate) gap: u64,
    /// How many it then strikes.
    pub(crate) times: u64,
    /// With what.
    pub(crate) fault: Fault,
}

impl Rule {
    /// The next request of `method` meets `fault`.
    pub(crate) fn next(method: Method, fault: Fault) -> Self {
        Self {
            method: Some(method),
            contains: String::new(),
            skip: 0,
            gap: 0,
            times: 1,
            fault,
        }
    }

    /// Every request meets `fault`.
    pub(crate) fn always(fault: Fault) -> Self {
        Self {
            method: None,
            contains: String::new(),
            skip: 0,
            gap: 0,
            times: u64::MAX,
            fault,
        }
    }

    /// Each `n`-th request meets `fault`.
    pub(crate) fn every(n: u64, fault: Fault) -> Self {
        Self {
            skip: n - 1,
            gap: n - 1,
            ..Self::always(fault)
        }
    }
}

#[derive(Default)]
pub(super) struct Faults {
    state: Mutex<State>,
    healed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    requests: u64,
    /// The same by method.
    by_method: HashMap<Method, u64>,
    /// Bytes in the bodies of answers.
    answered: u64,
    struck: u64,
    /// Requests that hang, or did, and are here whole.
    held: u64,
}

impl Faults {
    pub(super) fn add(&self, rule: Rule) {
        self.state.lock().rules.push(rule);
    }

    pub(super) fn heal(&self) {
        self.state.lock().rules.clear();
        self.healed.send_replace(());
    }

    pub(super) fn requests(&self) -> u64 {
        self.state.lock().requests
    }

    pub(super) fn requests_of(&self, method: &Method) -> u64 {
        let state = self.state.lock();
        state.by_method.get(method).copied().unwrap_or(0)
    }

    pub(super) fn answered(&self) -> u64 {
        self.state.lock().answered
    }

    pub(super) fn struck(&self) -> u64 {
        self.state.lock().struck
    }

    pub(super) fn held(&self) -> u64 {
        self.state.lock().held
    }

    fn next(&self, request: &Request<Incoming>) -> Option<Fault> {
        let uri = request.uri().to_string();
        let mut state = self.state.lock();
        state.requests += 1;
        *state.by_method.entry(request.method().clone()).or_default() += 1;
        let mut struck = None;
        for rule in &mut state.rules {
            let method = rule.method.as_ref();
            if method.is_some_and(|method| method != request.method())
                || !uri.contains(&rule.contains)
            {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
            } else if rule.times > 0 && struck.is_none() {
                rule.times -= 1;
                rule.skip = rule.gap;
                struck = Some(rule.fault);
            }
        }
        state.struck += u64::from(struck.is_some());
        struck
    }
}

/// The service that meets each request first.
#[derive(Clone)]
pub(super) struct Front {
    inner: S3Service,
    faults: Arc<Faults>,
}

impl Front {
    pub(super) fn new(inner: S3Service, faults: Arc<Faults>) -> Self {
        Self { inner, faults }
    }

    async fn answer(self, request: Request<Incoming>) -> Result<HttpResponse, HttpError> {
        let mut healed = self.faults.healed.subscribe();
        let fault = self.faults.next(&request);
        let mut request = request.map(Body::from);
        match fault {
            Some(Fault::Status(status, code)) => {
                take_in(request).await?;
                return Ok(refusal(status, code));
            }
            Some(Fault::Answer(status, headers, body)) => {
                take_in(request).await?;
                return Ok(answer(status, headers, body.to_owned()));
            }
            Some(Fault::Close) => return Err(closed()),
            Some(Fault::Pretend) => {
                take_in(request).await?;
                return Ok(HttpResponse::new(Body::empty()));
            }
            Some(Fault::Hang) => {
                request = take_in(request).await?;
                self.faults.state.lock().held += 1;
                let _ = healed.changed().await;
            }
            Some(Fault::Late(by)) => tokio::time::sleep(by).await,
            _ => {}
        }
        let is_get = request.method() == Method::GET;
        let answer = self.inner.call(request).await?;
        if is_get {
            self.faults.state.lock().answered += stated_len(&answer);
        }
        match fault {
            Some(Fault::LoseAnswer) => Err(closed()),
            Some(Fault::Late(_)) | None => Ok(answer),
            Some(fault) => damage(answer, fault).await,
        }
    }
}

impl hyper::service::Service<Request<Incoming>> for Front {
    type Response = HttpResponse;
    type Error = HttpError;
    type Future = BoxFuture<'static, Result<HttpResponse, HttpError>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        Box::pin(self.clone().answer(request))
    }
}

/// The request with its whole body, as servers take it before they answer: the connection would be reset under a client that is still
/// sending. Fails when the client breaks off, which gets no answer anyway.
async fn take_in(request: Request<Body>) -> Result<Request<Body>, HttpError> {
    let (head, body) = request.into_parts();
    let bytes: BytesMut = body.try_collect().await.map_err(HttpError::new)?;
    Ok(Request::from_parts(head, Body::from(bytes.freeze())))
}

/// How long an answer's body is, by what it says; none where it says nothing, as in lists.
fn stated_len(answer: &HttpResponse) -> u64 {
    let stated = answer.headers().get(hyper::header::CONTENT_LENGTH);
    let stated = stated.and_then(|len| len.to_str().ok()?.parse().ok());
    stated.unwrap_or(0)
}

/// hyper closes the connection when its service fails.
fn closed() -> HttpError {
    HttpError::new("the connection is closed by a test".into())
}

fn refusal(status: u16, code: &str) -> HttpResponse {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>injected by a test</Message></Error>"
    );
    answer(status, &[], text)
}

fn answer(status: u16, headers: &[(&'static str, &'static str)], body: String) -> HttpResponse {
    let mut answer = HttpResponse::new(Body::from(body));
    *answer.status_mut() = StatusCode::from_u16(status).expect("a status that a test made up");
    for (name, value) in headers {
        let value = HeaderValue::from_static(value);
        answer.headers_mut().insert(*name, value);
    }
    answer
}

/// Damages the body of an answer.
async fn damage(answer: HttpResponse, fault: Fault) -> Result<HttpResponse, HttpError> {
    let (mut parts, body) = answer.into_parts();
    let bytes: BytesMut = body.try_collect().await.map_err(HttpError::new)?;
    let body = match fault {
        Fault::BreakBody(len) => broken_off(bytes.freeze(), len),
        Fault::ShortBody(len) => {
            parts.headers.remove(hyper::header::CONTENT_LENGTH);
            let len = len.min(bytes.len());
            Body::from(bytes.freeze().slice(..len))
        }
        Fault::FlipBit(bit) if !bytes.is_empty() => {
            let mut bytes = bytes;
            let bit = bit % (bytes.len() as u64 * 8);
            bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
            Body::from(bytes.freeze())
        }
        _ => Body::from(bytes.freeze()),
    };
    Ok(HttpResponse::from_parts(parts, body))
}

/// A body that ends with an error after `len` bytes.
fn broken_off(bytes: Bytes, len: usize) -> Body {
    let begun = bytes.slice(..len.min(bytes.len()));
    let broken = std::io::Error::other("the body is broken off by a test");
    let parts = futures::stream::iter([Ok(begun), Err(broken)]);
    s3s::dto::StreamingBlob::wrap(parts).into()
}
