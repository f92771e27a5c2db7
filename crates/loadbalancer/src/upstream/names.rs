//! Names of response fields that were read before. Servers send the same few again and again; looking one up here is a
//! comparison of bytes, and reading it anew is six times that.
//!
//! Each thread has its own, and no other sees it. What is found is what reading would give, so which names are in it
//! changes nothing but time, and a backend that sends ever new ones only replaces old ones.

use std::cell::RefCell;

use http::HeaderName;

use super::fields::{Class, class};

/// Places for names; a power of two, and more than the different fields of a few kinds of servers.
const PLACES: usize = 64;

/// Longer names are read each time: there are hardly any.
const LONGEST: usize = 30;

/// A name as it was sent, and what it is.
struct Known {
    raw: [u8; LONGEST],
    length: u8,
    class: Class,
    name: HeaderName,
}

/// Names that were read before.
pub(super) struct Names([Option<Known>; PLACES]);

thread_local! {
    static NAMES: RefCell<Names> = const { RefCell::new(Names([const { None }; PLACES])) };
}

impl Names {
    /// Runs `with` on this thread's names.
    pub(super) fn with<T>(with: impl FnOnce(&mut Self) -> T) -> T {
        NAMES.with_borrow_mut(with)
    }

    /// The name that these bytes are in lower case, and its class; `None` if they are none.
    pub(super) fn read(&mut self, raw: &[u8]) -> Option<(HeaderName, Class)> {
        let [first, .., last] = raw else { return read(raw) };
        // A multiple of small odd numbers spreads names that differ in one of the three.
        let place = (raw.len() + 5 * usize::from(*first) + 11 * usize::from(*last)) % PLACES;
        if let Some(known) = &self.0[place]
            && known.raw[..usize::from(known.length)] == *raw
        {
            return Some((known.name.clone(), known.class));
        }
        let (name, class) = read(raw)?;
        if raw.len() <= LONGEST {
            let mut copy = [0; LONGEST];
            copy[..raw.len()].copy_from_slice(raw);
            self.0[place] = Some(Known { raw: copy, length: raw.len() as u8, class, name: name.clone() });
        }
        Some((name, class))
    }
}

fn read(raw: &[u8]) -> Option<(HeaderName, Class)> {
    let name = HeaderName::from_bytes(raw).ok()?;
    let class = class(name.as_str().as_bytes());
    Some((name, class))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Short names of few letters, so that places are shared and names met again.
        #[test]
        fn what_is_found_is_what_reading_gives(raws in prop::collection::vec("[aAb_ -]{0,3}|[vV][iI][aA]|x{29,32}", 1..200)) {
            Names::with(|names| {
                for raw in &raws {
                    let found = names.read(raw.as_bytes());
                    prop_assert_eq!(found, read(raw.as_bytes()), "{}", raw);
                }
                Ok(())
            })?;
        }
    }
}
