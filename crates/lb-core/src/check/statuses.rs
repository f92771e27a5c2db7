//! A set of statuses, as a person writes it: `200-299,304`.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Statuses that a final response can have (RFC 9110 §15): an interim one never ends a check.
const FINAL: RangeInclusive<u16> = 200..=599;

/// More parts than this are no set that a person wrote.
const MOST_PARTS: usize = 32;

/// What a set must look like, for messages.
const EXPECTED: &str = "statuses from 200 to 599 and ranges of them, such as 200-299,304";

/// Which statuses are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statuses(Vec<RangeInclusive<u16>>);

impl Statuses {
    /// What a set must look like, for messages.
    pub const EXPECTED: &'static str = EXPECTED;

    /// Whether `status` is one of them.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

impl FromStr for Statuses {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let status = |text: &str| {
            let text = text.trim();
            // `+200` is a number for the standard library.
            let plain = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|status| plain && FINAL.contains(status))
        };
        let range = |part: &str| {
            let (low, high) = part.split_once('-').unwrap_or((part, part));
            let (low, high) = (status(low)?, status(high)?);
            (low <= high).then_some(low..=high)
        };
        let ranges: Option<Vec<_>> = text.split(',').map(range).collect();
        ranges.filter(|ranges| ranges.len() <= MOST_PARTS).map(Self).ok_or(EXPECTED)
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, range) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            match (range.start(), range.end()) {
                (low, high) if low == high => write!(f, "{comma}{low}")?,
                (low, high) => write!(f, "{comma}{low}-{high}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use lb_fuzz::{Fuzz, Seen};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_set_of_statuses_is_refused() {
        let many = vec!["200"; MOST_PARTS + 1].join(",");
        for text in
            ["", "ok", "20", "2xx", "200,", "299-200", "100", "101-200", "600", "200--299", "+200", "-200", &many]
        {
            assert_eq!(text.parse::<Statuses>(), Err(EXPECTED), "{text:?}");
        }
        assert_eq!(" 200 - 299 , 304".parse::<Statuses>().unwrap().to_string(), "200-299,304");
    }

    /// The set as plainly as it can be read.
    fn members(text: &str) -> Option<Vec<u16>> {
        let status = |text: &str| match text.trim().as_bytes() {
            digits if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) => None,
            digits => {
                let number =
                    digits.iter().fold(0_u64, |n, digit| n.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
                u16::try_from(number).ok().filter(|status| (200..=599).contains(status))
            }
        };
        let mut members = Vec::new();
        for part in text.split(',') {
            let ends: Vec<Option<u16>> = part.splitn(2, '-').map(status).collect();
            match ends[..] {
                [Some(one)] => members.push(one),
                [Some(low), Some(high)] if low <= high => members.extend(low..=high),
                _ => return None,
            }
        }
        (text.split(',').count() <= MOST_PARTS).then_some(members)
    }

    #[test]
    fn fuzz_statuses() {
        let words: &[&[u8]] =
            &[b",", b"-", b" ", b"200", b"299", b"304", b"599", b"600", b"199", b"200-399", b"2xx", b"+"];
        Fuzz::new(env!("CARGO_MANIFEST_DIR"), "statuses").words(words).longest(400).run(|bytes| {
            let text = String::from_utf8_lossy(bytes);
            let parsed = text.parse::<Statuses>();
            assert_eq!(parsed.is_ok(), members(&text).is_some(), "{text:?}");
            let Ok(set) = parsed else { return Seen::refused().of(&(text.contains('-'), text.contains(','))) };
            let members = members(&text).expect("as was just seen");
            let differs = (0..=1000).find(|status| set.contains(*status) != members.contains(status));
            assert_eq!(differs, None, "{text:?}");
            let shown = set.to_string();
            assert_eq!(shown.parse::<Statuses>().as_ref(), Ok(&set), "{shown:?}");
            Seen::taken().of(&(set.0.len().min(4), shown.contains('-')))
        });
    }

    proptest! {
        #[test]
        fn a_set_holds_exactly_what_its_parts_say(
            parts in proptest::collection::vec((200..=599_u16, 0..=100_u16), 1..8),
            asked in 0..=700_u16,
        ) {
            let parts: Vec<_> = parts.into_iter().map(|(low, more)| (low, (low + more).min(599))).collect();
            let text = parts.iter().map(|(low, high)| format!("{low}-{high}")).collect::<Vec<_>>().join(",");
            let set: Statuses = text.parse().unwrap();
            prop_assert_eq!(set.contains(asked), parts.iter().any(|(low, high)| (*low..=*high).contains(&asked)));
            prop_assert_eq!(set.to_string().parse::<Statuses>().unwrap(), set);
        }
    }
}
