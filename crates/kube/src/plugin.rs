//! Credentials that a program gives (exec plugins): the program runs off the threads that carry calls.
//!
//! `kube` runs it again once its token ends, in the middle of a call and on the thread that polls it. One that hangs, since it
//! asks a person or a network that is away, would stop all else on that thread, deadlines included. Here the credentials are
//! put into the call on a thread that may block; whoever waited long enough goes, and the program is left to its end.

use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use kube::client::Body;
use kube::client::middleware::AuthLayer;
use nagi_runtime::Blocking;
use tokio::runtime::Handle;
use tower::{BoxError, Layer, Service, ServiceExt as _};

/// Calls that get their credentials at once: while a program hangs, so many threads wait for it, and the others for them.
const THREADS: usize = 8;

/// Puts credentials into calls, on a thread that may block.
#[derive(Clone)]
pub(crate) struct Aside {
    signer: Signer,
    blocking: Blocking,
}

/// What carries calls, with credentials put into them.
#[derive(Clone)]
pub(crate) struct Signed<S> {
    inner: S,
    aside: Aside,
}

/// `kube`'s own way, with a call in place of its answer.
type Signer = <AuthLayer as Layer<Echo>>::Service;

/// Answers a call with itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Echo;

// === impl Aside ===

impl Aside {
    pub(crate) fn new(auth: &AuthLayer) -> Self {
        Self {
            signer: auth.layer(Echo),
            blocking: Blocking::new("kubernetes exec plugin", THREADS),
        }
    }
}

impl<S> Layer<S> for Aside {
    type Service = Signed<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Signed {
            inner,
            aside: self.clone(),
        }
    }
}

// === impl Signed ===

impl<S> Service<Request<Body>> for Signed<S>
where
    S: Service<Request<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // The inner one is asked once there is something to send.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (inner, signer) = (self.inner.clone(), self.aside.signer.clone());
        let blocking = self.aside.blocking.clone();
        Box::pin(async move {
            let sign = move || Handle::current().block_on(signer.oneshot(request));
            let signed = blocking.run(sign).await?;
            inner.oneshot(signed?.into_body()).await.map_err(Into::into)
        })
    }
}

// === impl Echo ===

impl Service<Request<Body>> for Echo {
    type Response = Response<Request<Body>>;
    type Error = BoxError;
    type Future = Ready<Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        ready(Ok(Response::new(request)))
    }
}
