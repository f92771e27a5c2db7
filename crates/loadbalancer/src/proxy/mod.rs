//! The request path. [`answer`] reads like the list of its stages; each stage is a file.
//!
//! Whatever is started here belongs to the client connection's own task: when the client goes away the future is
//! dropped where it stands, and each piece undoes itself (the in-flight count in [`record`], the backend connection in
//! [`Exchange`](crate::upstream::Exchange)).

mod admit;
mod attempt;
mod body;
mod error;
mod record;
mod request;
mod response;
mod route;

use std::convert::Infallible;
use std::rc::Rc;

use http::Version;
use http::request::Parts;
use hyper::body::{Body as _, Incoming};
use hyper::{Request, Response};
use lb_core::metrics::Rejected;

use crate::access::Entry;
use crate::conn::Client;
use crate::upstream::RequestBody;
pub(crate) use body::ProxyBody;
use error::ProxyError;
pub(crate) use record::Record;
use request::Outbound;
pub(crate) use request::sent_target;

/// Takes one request up; its answer is a response always, ours if there is no other.
///
/// What can be done at once is done here, and the rest is given references: an `async fn` keeps a second copy of what it is
/// given, and a request's head is a quarter of a kilobyte.
pub(crate) fn call(
    client: &Rc<Client>,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<ProxyBody>, Infallible>> + use<> {
    let client = Rc::clone(client);
    let (head, body) = request.into_parts();
    let agreed = client.request_begins(body.size_hint().exact());
    let body = RequestBody::new(body, client.worker.shared.config.attempts.buffer, &client.unread);
    async move {
        let mut response = answer(&client, &head, body, agreed).await;
        if head.version == Version::HTTP_10 {
            // Its connection ends (RFC 9112 §9.3). To an answer of HTTP/1.1 hyper would add `keep-alive`, where the client asked
            // for it, and a client of that age may believe it.
            *response.version_mut() = Version::HTTP_10;
            client.will_believe_an_end();
        }
        Ok(response)
    }
}

async fn answer(
    client: &Rc<Client>,
    head: &Parts,
    body: RequestBody,
    agreed: Result<(), Rejected>,
) -> Response<ProxyBody> {
    let worker = &client.worker;
    let arrived = worker.clock.now();
    let mut entry = Entry::begin(client, head, arrived);
    let request = match agreed.map_err(ProxyError::Rejected).and_then(|()| Outbound::new(client, head)) {
        Ok(request) => request,
        Err(error) => return error::reply(client, head, None, &error, entry),
    };
    entry.identify(request.request_id.as_bytes());
    if request.max_forwards == Some(0) {
        return response::options_here(client, &request, entry);
    }
    if let Err(why) = admit::screen(client, &head.headers) {
        return error::reply(client, head, Some(&request), &ProxyError::Refused(why, String::new()), entry);
    }
    let Some(route) = route::pool(&worker.view()) else {
        return error::reply(client, head, Some(&request), &ProxyError::NoRoute, entry);
    };
    match attempt::run(client, &route, &request, body, arrived, &mut entry).await {
        Ok(reached) => response::forward(client, &request, reached),
        Err(error) => error::reply(client, head, Some(&request), &error, entry),
    }
}
