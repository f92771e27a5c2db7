//! One request: the route's answer, or the fault that is drawn for it, under the server's name.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode};
use tracing::debug;

use crate::app::App;
use crate::conn::{Cut, Peer};
use crate::exchange::Exchange;
use crate::faults::{Fate, HANG_MAX, Plan};
use crate::metrics::Injected;
use crate::reply::{self, Reply};
use crate::routes;
use crate::upload::Upload;

const X_SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");

pub(crate) async fn answer(app: Arc<App>, peer: Peer, request: Request<Incoming>) -> Result<Reply, Cut> {
    let mut exchange = Exchange::begin(&app, &peer.phases);
    let request = request.map(|incoming| Upload::new(incoming, &peer.phases));
    let plan =
        app.faults.as_ref().filter(|_| routes::is_ordinary(request.uri().path())).and_then(|faults| faults.plan());
    let mut reply = match plan {
        None => routes::answer(&app, &peer, request).await,
        // Boxed: a request that meets no fault should not carry the state of one.
        Some(plan) => Box::pin(faulty(&app, &peer, request, plan)).await?,
    };
    reply.headers_mut().insert(X_SERVED_BY, app.served_by());
    if app.is_stopping() {
        reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    exchange.answered(reply.status());
    reply.body_mut().carry(exchange);
    Ok(reply)
}

async fn faulty(app: &Arc<App>, peer: &Peer, request: Request<Upload>, plan: Plan) -> Result<Reply, Cut> {
    if !plan.delay.is_zero() {
        app.metrics.injected(Injected::Latency);
        tokio::time::sleep(plan.delay).await;
    }
    match plan.fate {
        Fate::Answer => Ok(routes::answer(app, peer, request).await),
        Fate::Error => {
            app.metrics.injected(Injected::Error);
            Ok(match request.into_body().discard().await {
                Ok(()) => {
                    reply::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{}: injected fault: error\n", app.name()))
                }
                Err(error) => error.into_reply(),
            })
        }
        Fate::Hang => {
            app.metrics.injected(Injected::Hang);
            hang(HANG_MAX).await
        }
        Fate::ResetBefore => {
            app.metrics.injected(Injected::ResetBefore);
            Err(Cut::Reset)
        }
        Fate::ResetMid => {
            app.metrics.injected(Injected::ResetMid);
            let has_body = request.method() != Method::HEAD;
            let reply = routes::answer(app, peer, request).await;
            // Without a body there is no middle: then before the first byte.
            let has_body = has_body && !reply.body().is_end_stream() && reply.status() != StatusCode::NOT_MODIFIED;
            if has_body { Ok(reply.map(crate::body::Body::torn)) } else { Err(Cut::Reset) }
        }
    }
}

/// Dropped when the client gives up, which is how it usually ends.
async fn hang(bound: Duration) -> Result<Reply, Cut> {
    tokio::time::sleep(bound).await;
    debug!("a request hung for its whole bound");
    Err(Cut::Close)
}
