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
    // One that has been handed on to its end, and is held by nobody any more, is one.
    if to.capacity() == 0 && !to.try_reclaim(SIZE) {
        *to = spare.take();
        // From its start again, if nobody holds on to a part of it.
        to.reserve(SIZE);
    }
}

/// Takes `from` back, if nothing is in it.
pub(super) fn give_back(spare: &'static Spare, from: &mut BytesMut) {
    if !from.is_empty() {
        return;
    }
    // Of one that nobody else holds a part of, all that it has room for shows now.
    let _ = from.try_reclaim(SIZE);
    if from.capacity() <= SIZE {
        let returned = std::mem::take(from);
        spare.with_borrow_mut(|spare| {
            if spare.capacity() == 0 {
                *spare = returned;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;

    use super::*;

    thread_local! {
        static SPARE: RefCell<BytesMut> = RefCell::new(BytesMut::new());
    }

    fn borrowed() -> BytesMut {
        let mut buffer = BytesMut::new();
        borrow(&SPARE, &mut buffer);
        assert!(buffer.is_empty() && buffer.capacity() >= SIZE);
        buffer
    }

    #[test]
    fn one_buffer_goes_round() {
        let mut first = borrowed();
        let at = first.as_ptr();
        first.put_slice(b"a response");
        assert_eq!(first.split().freeze(), "a response");
        give_back(&SPARE, &mut first);
        assert_eq!(first.capacity(), 0);
        for _ in 0..10_000 {
            let mut next = borrowed();
            assert_eq!(next.as_ptr(), at, "the same, from its start");
            next.put_slice(&[b'x'; 1000]);
            drop(next.split());
            give_back(&SPARE, &mut next);
        }
    }

    #[test]
    fn what_is_held_of_a_buffer_is_not_written_again() {
        let mut first = borrowed();
        first.put_slice(b"held");
        let held = first.split().freeze();
        give_back(&SPARE, &mut first);
        let mut second = borrowed();
        second.put_slice(&vec![b'x'; SIZE]);
        assert_eq!(held, "held");
    }

    #[test]
    fn what_is_in_a_buffer_stays_with_whoever_has_it() {
        let mut first = borrowed();
        first.put_slice(b"half a he");
        give_back(&SPARE, &mut first);
        let second = borrowed();
        assert_eq!(&first[..], b"half a he");
        assert_ne!(first.as_ptr(), second.as_ptr());
    }

    #[test]
    fn a_large_one_is_not_lent_on() {
        let mut large = borrowed();
        large.put_slice(&vec![b'x'; 2 * SIZE]);
        large.truncate(0);
        give_back(&SPARE, &mut large);
        assert!(large.capacity() >= 2 * SIZE, "it keeps it");
        SPARE.with_borrow(|spare| assert_eq!(spare.capacity(), 0));
    }
}
