//! The request path. [`call`] reads like the list of its stages; each stage is a file.
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

use std::rc::Rc;

use hyper::body::{Body as _, Incoming};
use hyper::{Request, Response};

use crate::access::Entry;
use crate::conn::Client;
use crate::upstream::RequestBody;
pub(crate) use body::ProxyBody;
pub(crate) use record::Record;
pub(crate) use request::sent_target;

/// Answers one request: always with a response, ours if there is no other.
pub(crate) async fn call(client: Rc<Client>, request: Request<Incoming>) -> Response<ProxyBody> {
    let worker = &client.worker;
    let arrived = worker.clock.now();
    let (head, body) = request.into_parts();
    let agreed = client.request_begins(body.size_hint().exact());
    let mut entry = Entry::begin(&client, &head, arrived);
    let body = RequestBody::new(body, worker.shared.config.attempts.buffer, Rc::clone(&client.unread));
    let request = agreed.map_err(error::ProxyError::Rejected).and_then(|()| request::Outbound::new(&client, &head));
    let request = match request {
        Ok(request) => request,
        Err(error) => return error::reply(&client, &head, None, &error, entry),
    };
    entry.identify(request.request_id.as_bytes());
    if request.max_forwards == Some(0) {
        return response::options_here(&client, &request, entry);
    }
    if let Err(why) = admit::screen(&client, &head.headers) {
        let error = error::ProxyError::Refused(why, String::new());
        return error::reply(&client, &head, Some(&request), &error, entry);
    }
    let view = worker.view();
    let Some(pool) = route::pool(&view) else {
        return error::reply(&client, &head, Some(&request), &error::ProxyError::NoRoute, entry);
    };
    match attempt::run(&client, &pool, &request, body, arrived, &mut entry).await {
        Ok(reached) => response::forward(&client, &request, reached),
        Err(error) => error::reply(&client, &head, Some(&request), &error, entry),
    }
}
