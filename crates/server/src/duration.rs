//! Durations as people write them: a whole number and a unit.
//!
//! Used by the options and by the fault grammar, so that one spelling works everywhere.

use std::time::Duration;

/// What a duration looks like, for messages.
pub(crate) const EXPECTED: &str = "a whole number with a unit: 50ms, 10s, 5m or 1h";

/// Reads `50ms`, `10s`, `5m` or `1h`.
///
/// # Errors
/// [`EXPECTED`] when it is anything else; a bare number has no unit and is refused rather than guessed at.
pub(crate) fn parse(text: &str) -> Result<Duration, &'static str> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| EXPECTED)?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(EXPECTED),
    };
    number.checked_mul(unit_ms).map(Duration::from_millis).ok_or(EXPECTED)
}

/// The shortest text that [`parse`] reads back to the same whole milliseconds.
pub(crate) fn show(duration: Duration) -> String {
    let ms = duration.as_millis();
    for (unit_ms, unit) in [(3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
        if ms != 0 && ms.is_multiple_of(unit_ms) {
            return format!("{}{unit}", ms / unit_ms);
        }
    }
    format!("{ms}ms")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_unit_is_read() {
        for (text, ms) in [("0ms", 0), ("50ms", 50), ("10s", 10_000), ("5m", 300_000), ("1h", 3_600_000)] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "5", "s", "1.5s", "-1s", "1 s", "1S", "5sec", "99999999999999999999s", "18446744073709551615h"]
        {
            assert_eq!(parse(text), Err(EXPECTED), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(ms in 0u64..10_000_000_000) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse(&show(duration)), Ok(duration));
        }
    }
}
