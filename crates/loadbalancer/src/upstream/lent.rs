//! Buffers that connections share: each thread has one to read into and one to write from, and lends it to the connection
//! whose turn it is.
//!
//! A response of some hundred bytes is read, understood and handed on within one poll, and a request's head is written and
//! sent within one. Buffers of their own would be empty nearly always, and yet each exchange would touch memory that nobody
//! else has touched for as long as there are connections: with a thousand of them the processor waits for it each time.
//! What one poll does not finish stays in the buffer, which is the connection's own from then on; the thread makes itself
//! another one for the next.

use std::cell::RefCell;
use std::thread::LocalKey;

use bytes::BytesMut;

/// How large they are: most responses fit whole. What holds on to a part of one (a client that does not take its response)
/// holds on to all of it, which is why they are not larger. A buffer that was made larger for a large body is not lent on:
/// it would push everything else out of the processor's cache.
pub(super) const SIZE: usize = 32 * 1024;

type Spare = LocalKey<RefCell<BytesMut>>;

thread_local! {
    pub(super) static RECEIVING: RefCell<BytesMut> = RefCell::new(BytesMut::new());
    pub(super) static SENDING: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// Lends `to` the buffer, if it has none.
pub(super) fn borrow(spare: &'static Spare, to: &mut BytesMut) {
    if to.capacity() == 0 {
        spare.with_borrow_mut(|spare| std::mem::swap(spare, to));
        // From its start again, where nobody holds on to a part of it any more.
        to.reserve(SIZE);
    }
}

/// Takes `from` back, if nothing is in it.
pub(super) fn give_back(spare: &'static Spare, from: &mut BytesMut) {
    if from.is_empty() && from.capacity() <= SIZE {
        let returned = std::mem::take(from);
        spare.with_borrow_mut(|spare| {
            if spare.capacity() == 0 {
                *spare = returned;
            }
        });
    }
}
