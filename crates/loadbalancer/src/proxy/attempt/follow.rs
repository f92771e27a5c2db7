//! What follows an attempt that gave no answer for the client: another one, after a wait, or the end.

use std::rc::Rc;

use lb_core::retry::RetryCause;

use super::super::admit::{self, NoPlace, Permit};
use super::choose::{Ending, Next, cause, next, passed_over, pause};
use super::once::discard;
use super::story::{give_up, note, note_status};
use super::{Attempted, Outbound, ProxyError, Reached, Route, Spent, Unanswered, no_place};
use crate::access::Entry;
use crate::conn::Client;
use crate::upstream::RequestBody;

/// What comes next.
pub(super) enum Following {
    /// The answer that is there, for want of a better one.
    Answer(Box<Reached>),
    /// Another attempt, with the body from its start.
    Attempt(Permit, RequestBody),
}

/// Decides what comes next, and waits for it.
///
/// # Errors
/// What the client is told when nothing does.
///
/// # Cancel safety
/// Dropped while it waits, it counts a client that went away.
pub(super) async fn follow<'a>(
    client: &'a Rc<Client>,
    route: &Route,
    request: &Outbound<'_>,
    attempted: Attempted,
    entry: &mut Entry,
    spent: &mut Spent<'a>,
) -> Result<Following, ProxyError> {
    let Attempted { slot, backend, mut record, ended } = attempted;
    client.time.try_ends();
    spent.tried.insert(slot);
    let (following, mut body) = match ended {
        Unanswered::Unwanted(answered) => {
            let (answer, mut exchange) = *answered;
            let replayable = exchange.outgoing.body.is_replayable();
            let ending = Ending { slot, why: RetryCause::Status, replayable, raced: false };
            let Some(following) = next(client, route, request, ending, spent).await else {
                return Ok(Following::Answer(Box::new(Reached::new(answer, exchange, record))));
            };
            note_status(&backend, &mut record, answer.status, spent);
            *entry = record.into_entry();
            if request.upgrade.is_some() {
                exchange.forget_connection();
            }
            (following, discard(client, &backend, exchange).await)
        }
        Unanswered::Broken(broken) => {
            note(client, &backend, &mut record, &broken, spent);
            // From here on it is in flight nowhere.
            *entry = record.into_entry();
            let replayable = broken.body.is_replayable();
            let following = match cause(&broken).map(|why| Ending { slot, why, replayable, raced: broken.raced }) {
                Some(ending) => next(client, route, request, ending, spent).await,
                None => None,
            };
            let Some(following) = following else {
                return Err(give_up(broken.cause, std::mem::take(&mut spent.story), client.rejected()));
            };
            (following, broken.body)
        }
    };
    let Next { why, wait } = following;
    pause(client, wait).await;
    // Only now: whoever was there before the wait may have gone, and others may have come.
    let place = match passed_over(client, spent.tried, slot) {
        Some(over) => admit::enter_again(client, &over).await,
        None => Err(NoPlace::Nobody),
    };
    let permit = place.map_err(|why| no_place(why, route, std::mem::take(&mut spent.story)))?;
    backend.shard().retries.add(1);
    client.worker.slot().shard.retries[why as usize].add(1);
    body.rewind();
    Ok(Following::Attempt(permit, body))
}
