//! What an origin does to its clients at the moment. Pure.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A line on the origin's standard input says one of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) enum Mode {
    /// Answers rightly.
    #[default]
    Serve,
    /// Answers rightly, and closes the connection after each answer.
    CloseEach,
    /// Nobody listens; connections that are open get one more answer, so that nothing else is wrong.
    Refuse,
    /// Accepts a connection and resets it at once; those that are open get one more answer.
    ResetFresh,
    /// Sends one byte a second of one answer in so many.
    Drip { one_in: u64 },
    /// Ends the connection in the middle of an answer.
    Cut { place: Place, how: How },
    /// Answers the first request of a connection, and resets it when the next one has come.
    LateReset,
    /// Closes a connection after it was idle for 1 ms to this many.
    CloseIdle { most_ms: u64 },
    /// Announces more bytes than it sends.
    LieLong,
    /// Sends more bytes than it announced.
    LieShort,
    /// Sends another answer that nobody asked for.
    Extra,
    /// Answers before it has read the request's body, and never reads that.
    Early,
    /// Answers with 503.
    Fail,
    /// Answers so much later.
    Slow { ms: u64 },
    /// Resets fresh connections in bursts: 50 ms of each 250.
    ResetBursts,
    /// Is gone for 200 ms of each second.
    Vanish,
}

/// Where an answer is cut, and with that how its length is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Place {
    Head,
    Length,
    Chunked,
    /// The end of the body is the end of the connection.
    Close,
}

/// How it is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum How {
    Close,
    Reset,
}

pub(in super::super) const PLACES: [Place; 4] = [Place::Head, Place::Length, Place::Chunked, Place::Close];

impl Mode {
    /// Whether an answer is the last one of its connection.
    pub(super) const fn closes(self) -> bool {
        matches!(self, Self::CloseEach | Self::Refuse | Self::ResetFresh | Self::LieLong)
    }
}

/// Of each period, and how long: fresh connections are reset.
pub(super) const BURST: (Duration, Duration) = (Duration::from_millis(250), Duration::from_millis(50));

/// Of each period, and how long: nobody is there.
pub(super) const ABSENCE: (Duration, Duration) = (Duration::from_millis(1000), Duration::from_millis(200));

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serve => f.write_str("serve"),
            Self::CloseEach => f.write_str("close-each"),
            Self::Refuse => f.write_str("refuse"),
            Self::ResetFresh => f.write_str("reset-fresh"),
            Self::Drip { one_in } => write!(f, "drip {one_in}"),
            Self::Cut { place, how } => write!(f, "cut-{}-{}", place.name(), how.name()),
            Self::LateReset => f.write_str("late-reset"),
            Self::CloseIdle { most_ms } => write!(f, "close-idle {most_ms}"),
            Self::LieLong => f.write_str("lie-long"),
            Self::LieShort => f.write_str("lie-short"),
            Self::Extra => f.write_str("extra"),
            Self::Early => f.write_str("early"),
            Self::Fail => f.write_str("fail"),
            Self::Slow { ms } => write!(f, "slow {ms}"),
            Self::ResetBursts => f.write_str("reset-bursts"),
            Self::Vanish => f.write_str("vanish"),
        }
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no mode of an origin");
        let (word, number) = text.split_once(' ').unwrap_or((text, ""));
        let number = || number.parse::<u64>().map_err(|_| wrong());
        Ok(match word {
            "serve" => Self::Serve,
            "close-each" => Self::CloseEach,
            "refuse" => Self::Refuse,
            "reset-fresh" => Self::ResetFresh,
            "drip" => Self::Drip { one_in: number()? },
            "late-reset" => Self::LateReset,
            "close-idle" => Self::CloseIdle { most_ms: number()? },
            "lie-long" => Self::LieLong,
            "lie-short" => Self::LieShort,
            "extra" => Self::Extra,
            "early" => Self::Early,
            "fail" => Self::Fail,
            "slow" => Self::Slow { ms: number()? },
            "reset-bursts" => Self::ResetBursts,
            "vanish" => Self::Vanish,
            cut => return parse_cut(cut).ok_or_else(wrong),
        })
    }
}

fn parse_cut(text: &str) -> Option<Mode> {
    let (place, how) = text.strip_prefix("cut-")?.split_once('-')?;
    let place = PLACES.into_iter().find(|known| known.name() == place)?;
    let how = [How::Close, How::Reset].into_iter().find(|known| known.name() == how)?;
    Some(Mode::Cut { place, how })
}

impl Place {
    pub(in super::super) const fn name(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Length => "length",
            Self::Chunked => "chunked",
            Self::Close => "close",
        }
    }
}

impl How {
    const fn name(self) -> &'static str {
        match self {
            Self::Close => "fin",
            Self::Reset => "rst",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_read_as_it_was_written() {
        let mut modes = vec![
            Mode::Serve,
            Mode::CloseEach,
            Mode::Refuse,
            Mode::ResetFresh,
            Mode::Drip { one_in: 9 },
            Mode::LateReset,
            Mode::CloseIdle { most_ms: 20 },
            Mode::LieLong,
            Mode::LieShort,
            Mode::Extra,
            Mode::Early,
            Mode::Fail,
            Mode::Slow { ms: 30 },
            Mode::ResetBursts,
            Mode::Vanish,
        ];
        for place in PLACES {
            modes.extend([How::Close, How::Reset].map(|how| Mode::Cut { place, how }));
        }
        for mode in modes {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        for wrong in ["", "close-idle", "close-idle x", "cut-head", "cut-tail-fin", "slow -1"] {
            assert!(wrong.parse::<Mode>().is_err(), "{wrong}");
        }
    }
}
