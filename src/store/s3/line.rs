//! The line to the server: every HTTP request and answer of the S3 client passes here, those that fetch credentials too.
//!
//! Bodies are paced while they travel ([`crate::store::pace`]), a connection on which nothing moves is given up (`silence.rs`), and
//! the server's clock is read from its answers. Nothing is counted or tried again here.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use leaky_bucket::AcquireOwned;
use tokio::time::{Instant, Sleep, sleep_until};

use super::silence::{Activity, Limits, Silence};
use super::skew::Skew;
use crate::store::pace::{Lane, Pace};

/// What must have come before the next wait begins anew, in bytes: a server that sends single ones for ever is given up.
const STEP_MIN: usize = 32 << 10;

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) inner: SharedHttpClient,
    pub(super) pace: Pace,
    pub(super) skew: Arc<Skew>,
}

impl HttpClient for Line {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Carrier {
            inner: self.inner.http_connector(settings, components),
            line: self.clone(),
        })
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.inner.connector_metadata()
    }
}

/// Carries requests over one kind of connection.
#[derive(Clone, Debug)]
struct Carrier {
    inner: SharedHttpConnector,
    line: Line,
}

impl HttpConnector for Carrier {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(self.clone().carry(request))
    }
}

impl Carrier {
    async fn carry(self, mut request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let body = request.take_body();
        let limits = Limits::for_body(body.content_length().unwrap_or(u64::MAX));
        let activity = Arc::new(Activity::now());
        let lane = self.line.pace.up.clone();
        *request.body_mut() = SdkBody::from_body_1_x(Travelling::new(body, lane, activity.clone()));
        let mut answer = tokio::select! {
            answer = self.inner.call(request) => answer?,
            silence = activity.silent(limits.asking) => {
                return Err(ConnectorError::timeout(silence.into()));
            }
        };
        if let Some(date) = answer.headers().get("date") {
            self.line.skew.note(date);
        }
        let lane = self.line.pace.down.clone();
        let body = Travelling::new(answer.take_body(), lane, Arc::new(Activity::now()));
        *answer.body_mut() = SdkBody::from_body_1_x(Watched::new(body, limits));
        Ok(answer)
    }
}

/// A body that moves in steps, each in its turn.
struct Travelling {
    inner: SdkBody,
    /// What has come and not gone yet.
    rest: Bytes,
    lane: Lane,
    turn: Option<Pin<Box<AcquireOwned>>>,
    activity: Arc<Activity>,
}

impl Travelling {
    fn new(inner: SdkBody, lane: Lane, activity: Arc<Activity>) -> Self {
        Self {
            inner,
            rest: Bytes::new(),
            lane,
            turn: None,
            activity,
        }
    }

    /// Whether it waits for its turn rather than for the other side.
    fn is_held(&self) -> bool {
        self.turn.is_some()
    }
}

type Step = Option<Result<Frame<Bytes>, aws_smithy_types::body::Error>>;

impl Body for Travelling {
    type Data = Bytes;
    type Error = aws_smithy_types::body::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Step> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        let step = self.lane.step(self.rest.len());
        if self.turn.is_none() {
            self.turn = self.lane.turn(step).map(Box::pin);
        }
        if let Some(turn) = &mut self.turn {
            if turn.as_mut().poll(context).is_pending() {
                self.activity.held();
                return Poll::Pending;
            }
            self.turn = None;
        }
        self.activity.moved();
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(step)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (hint, rest) = (self.inner.size_hint(), self.rest.len() as u64);
        let mut whole = SizeHint::new();
        whole.set_lower(hint.lower() + rest);
        if let Some(upper) = hint.upper() {
            whole.set_upper(upper + rest);
        }
        whole
    }
}

/// An answer's body that fails when nothing comes any more.
struct Watched {
    inner: Travelling,
    limits: Limits,
    silence: Pin<Box<Sleep>>,
    /// What has come since the wait began, in bytes.
    come: usize,
}

impl Watched {
    fn new(inner: Travelling, limits: Limits) -> Self {
        Self {
            inner,
            limits,
            silence: Box::pin(sleep_until(Instant::now() + limits.answering)),
            come: 0,
        }
    }

    fn wait_anew(&mut self) {
        self.come = 0;
        let until = Instant::now() + self.limits.answering;
        self.silence.as_mut().reset(until);
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = aws_smithy_types::body::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Step> {
        let was_held = self.inner.is_held();
        match Pin::new(&mut self.inner).poll_frame(context) {
            Poll::Ready(step) => {
                if let Some(Ok(frame)) = &step {
                    self.come += frame.data_ref().map_or(0, Bytes::len);
                }
                if was_held || self.come >= STEP_MIN {
                    self.wait_anew();
                }
                Poll::Ready(step)
            }
            Poll::Pending if self.inner.is_held() => Poll::Pending,
            Poll::Pending => {
                ready!(self.silence.as_mut().poll(context));
                Poll::Ready(Some(Err(Silence(self.limits.answering).into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::pace;

    /// Each step of this body waits for longer than the line may be silent. It is we who hold it back, so the line is not given up.
    #[tokio::test]
    async fn what_is_held_back_is_not_taken_for_a_broken_line() {
        let limits = pace::Limits {
            upload: Some(pace::RATE_MIN),
            download: None,
        };
        let activity = Arc::new(Activity::now());
        let body = SdkBody::from(vec![7; 8 << 10]);
        let mut body = Travelling::new(body, Pace::new(limits).up, activity.clone());
        let travelling = async {
            let mut come = 0;
            while let Some(step) = next(&mut body).await {
                come += step.unwrap().data_ref().map_or(0, Bytes::len);
            }
            come
        };
        tokio::select! {
            come = travelling => assert_eq!(come, 8 << 10),
            silence = activity.silent(Duration::from_millis(40)) => panic!("{silence}"),
        }
    }

    async fn next(body: &mut Travelling) -> Step {
        std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await
    }

    /// A body of which nothing comes any more fails; one that comes slowly does not.
    #[tokio::test]
    async fn an_answer_that_stands_still_is_given_up() {
        let limits = Limits {
            asking: Duration::ZERO,
            answering: Duration::from_millis(20),
        };
        let lane = Pace::default().down;
        let silent = SdkBody::from_body_1_x(Never);
        let travelling = Travelling::new(silent, lane, Arc::new(Activity::now()));
        let mut body = Watched::new(travelling, limits);
        let step = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        let error = step.unwrap().unwrap_err();
        assert!(error.is::<Silence>(), "{error}");
    }

    /// A body that has begun and never goes on.
    struct Never;

    impl Body for Never {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            Poll::Pending
        }
    }
}
