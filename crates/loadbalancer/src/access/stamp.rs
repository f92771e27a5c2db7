//! Moments as RFC 3339 text. The second is formatted once and kept: lines come by the thousand in each.

/// `2026-07-02T10:11:12.345Z`, with what it was made from.
#[derive(Debug)]
pub(super) struct Stamp {
    /// Unix time of `text`.
    second: u64,
    text: [u8; 24],
}

impl Default for Stamp {
    fn default() -> Self {
        Self { second: 0, text: *b"1970-01-01T00:00:00.000Z" }
    }
}

impl Stamp {
    /// The text for so many milliseconds of Unix time, up to the year 9999.
    pub(super) fn at(&mut self, unix_ms: u64) -> &[u8; 24] {
        let (second, ms) = (unix_ms / 1000, unix_ms % 1000);
        if second != self.second {
            self.second = second;
            let (year, month, day) = date(second / 86_400);
            let of_day = second % 86_400;
            let parts = [(0, 4, year), (5, 2, month), (8, 2, day)];
            let clock = [(11, 2, of_day / 3600), (14, 2, of_day / 60 % 60), (17, 2, of_day % 60)];
            for (at, digits, number) in parts.into_iter().chain(clock) {
                self.put(at, digits, number);
            }
        }
        self.put(20, 3, ms);
        &self.text
    }

    fn put(&mut self, at: usize, digits: usize, mut number: u64) {
        for place in self.text[at..at + digits].iter_mut().rev() {
            *place = b'0' + (number % 10) as u8;
            number /= 10;
        }
    }
}

/// Year, month and day of so many days after 1970-01-01, in the Gregorian calendar. Years are counted from March, so
/// that the leap day is the last one; four hundred of them have 146,097 days.
fn date(days: u64) -> (u64, u64, u64) {
    // 1970-01-01 is 719,468 days after 0000-03-01.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    // Months from March have 31, 30, 31, 30, 31 days, and again.
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(unix_ms: u64) -> String {
        String::from_utf8(Stamp::default().at(unix_ms).to_vec()).unwrap()
    }

    #[test]
    fn known_moments() {
        assert_eq!(text(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(text(951_827_696_007), "2000-02-29T12:34:56.007Z");
        assert_eq!(text(1_709_251_199_999), "2024-02-29T23:59:59.999Z");
        assert_eq!(text(1_709_251_200_000), "2024-03-01T00:00:00.000Z");
        assert_eq!(text(4_102_444_800_000), "2100-01-01T00:00:00.000Z");
    }

    #[test]
    fn days_follow_each_other_as_in_the_calendar() {
        let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..200_000 {
            assert_eq!(date(days), (year, month, day), "{days}");
            let length = match month {
                2 => 28 + u64::from(leap(year)),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > length {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }

    #[test]
    fn the_kept_second_is_left_when_the_next_one_comes() {
        let mut stamp = Stamp::default();
        assert_eq!(stamp.at(1_709_251_199_001), b"2024-02-29T23:59:59.001Z");
        assert_eq!(stamp.at(1_709_251_199_999), b"2024-02-29T23:59:59.999Z");
        assert_eq!(stamp.at(1_709_251_200_000), b"2024-03-01T00:00:00.000Z");
    }
}
