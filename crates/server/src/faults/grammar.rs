//! Faults as text: `latency=50ms,jitter=20ms,error=10%,hang=1%,reset-before=1%,reset-mid=1%,refuse=10s`.
//!
//! One grammar for the flag, the variable and the run-time switch; a JSON object is read as the same pairs, so
//! there is one set of rules and messages. What [`Faults`] shows can be read back.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Faults, LATENCY_MAX, REFUSE_DEFAULT, REFUSE_MAX, Rate};
use crate::duration;

/// The grammar in words, for `--help` and for the answer to a wrong one.
pub(crate) const GRAMMAR: &str = "\
none, or a comma separated list of:
  latency=TIME       wait before answering, at most 60s
  jitter=TIME        vary the latency by up to this much either way; not more than the latency
  error=RATE         answer 500
  hang=RATE          take the request and never answer (ends when the connection closes, after 1h at the latest)
  reset-before=RATE  reset the connection before the first byte of the answer
  reset-mid=RATE     reset the connection in the middle of the body
  refuse[=TIME]      close the listening port for that long (default 10s, at most 1h); open connections go on
TIME is a whole number with a unit: 50ms, 10s, 5m or 1h. RATE is a percentage: 100%, 10%, 0.5%.
A request meets at most one of error, hang, reset-before and reset-mid: together they may not exceed 100%.";

const KEYS: &str = "latency, jitter, error, hang, reset-before, reset-mid, refuse";

/// Why a text is not a set of faults: one sentence that names the part, its value and what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong(String);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Wrong {}

impl FromStr for Faults {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let text = text.trim();
        if text == "none" {
            return Ok(Self::default());
        }
        let pairs = text.split(',').map(|part| match part.trim().split_once('=') {
            Some((key, value)) => (key.trim(), Some(value.trim())),
            None => (part.trim(), None),
        });
        from_pairs(pairs)
    }
}

/// Reads `{"latency": "50ms", "refuse": true}`: the same keys and values as in the text form.
///
/// # Errors
/// The first part that is wrong.
pub(crate) fn from_json(value: &Value) -> Result<Faults, Wrong> {
    let Value::Object(object) = value else {
        return Err(Wrong(format!("expected a JSON object such as {{\"error\": \"10%\"}}, got {value}")));
    };
    let mut pairs = Vec::with_capacity(object.len());
    for (key, value) in object {
        match value {
            Value::String(text) => pairs.push((key.as_str(), Some(text.as_str()))),
            Value::Bool(true) => pairs.push((key.as_str(), None)),
            Value::Null | Value::Bool(false) => {}
            other => return Err(Wrong(format!("{key}={other}: expected a string such as \"50ms\" or \"10%\""))),
        }
    }
    from_pairs(pairs.into_iter())
}

fn from_pairs<'a>(pairs: impl Iterator<Item = (&'a str, Option<&'a str>)>) -> Result<Faults, Wrong> {
    let mut faults = Faults::default();
    let mut seen = Vec::new();
    for (key, value) in pairs {
        if seen.contains(&key) {
            return Err(Wrong(format!("{key} is given twice")));
        }
        seen.push(key);
        match key {
            "latency" => faults.latency = time(key, value, Duration::ZERO, LATENCY_MAX)?,
            "jitter" => faults.jitter = time(key, value, Duration::ZERO, LATENCY_MAX)?,
            "error" => faults.error = rate(key, value)?,
            "hang" => faults.hang = rate(key, value)?,
            "reset-before" => faults.reset_before = rate(key, value)?,
            "reset-mid" => faults.reset_mid = rate(key, value)?,
            "refuse" if value.is_none() => faults.refuse = Some(REFUSE_DEFAULT),
            "refuse" => faults.refuse = Some(time(key, value, Duration::from_millis(1), REFUSE_MAX)?),
            "" => return Err(Wrong(format!("an empty part: expected none, or a list of {KEYS}"))),
            _ => return Err(Wrong(format!("{key} is no fault: expected one of {KEYS}"))),
        }
    }
    check_together(&faults)?;
    Ok(faults)
}

fn check_together(faults: &Faults) -> Result<(), Wrong> {
    if faults.jitter > faults.latency {
        let (jitter, latency) = (duration::show(faults.jitter), duration::show(faults.latency));
        return Err(Wrong(format!("jitter={jitter}: expected at most the latency, which is {latency}")));
    }
    let sum: u32 = [faults.error, faults.hang, faults.reset_before, faults.reset_mid].iter().map(|rate| rate.0).sum();
    if sum > Rate::ALL {
        let sum = Rate(sum);
        return Err(Wrong(format!("error, hang, reset-before and reset-mid add up to {sum}: expected at most 100%")));
    }
    Ok(())
}

fn time(key: &str, value: Option<&str>, least: Duration, most: Duration) -> Result<Duration, Wrong> {
    let Some(value) = value else {
        return Err(Wrong(format!("{key} has no value: expected {key}=TIME, {}", duration::EXPECTED)));
    };
    let time = duration::parse(value).map_err(|expected| Wrong(format!("{key}={value}: expected {expected}")))?;
    if time < least || time > most {
        let (least, most) = (duration::show(least), duration::show(most));
        return Err(Wrong(format!("{key}={value}: expected {least} to {most}")));
    }
    Ok(time)
}

fn rate(key: &str, value: Option<&str>) -> Result<Rate, Wrong> {
    let Some(value) = value else {
        return Err(Wrong(format!("{key} has no value: expected {key}=RATE, such as {key}=10%")));
    };
    parse_rate(value).ok_or_else(|| {
        Wrong(format!(
            "{key}={value}: expected a percentage of 0% to 100%, such as 10% or 0.5% (three decimals at most)"
        ))
    })
}

/// Read digit by digit: a float would let `1e2%`, `inf%` and rounding in.
fn parse_rate(text: &str) -> Option<Rate> {
    let (whole, decimals) = match text.strip_suffix('%')?.split_once('.') {
        Some((whole, decimals)) => (whole, Some(decimals)),
        None => (text.strip_suffix('%')?, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || whole.len() > 3 || decimals.is_some_and(|text| !digits(text) || text.len() > 3) {
        return None;
    }
    let thousandths: u32 =
        whole.parse::<u32>().ok()? * 1_000 + format!("{:0<3}", decimals.unwrap_or("")).parse::<u32>().ok()?;
    (thousandths <= Rate::ALL).then_some(Rate(thousandths))
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = format!("{:03}", self.0 % 1_000);
        let decimals = decimals.trim_end_matches('0');
        write!(f, "{}{}{decimals}%", self.0 / 1_000, if decimals.is_empty() { "" } else { "." })
    }
}

impl Faults {
    /// The parts that are set, in the order of the grammar.
    fn parts(&self) -> Vec<(&'static str, String)> {
        let times = [("latency", self.latency), ("jitter", self.jitter)];
        let rates = [
            ("error", self.error),
            ("hang", self.hang),
            ("reset-before", self.reset_before),
            ("reset-mid", self.reset_mid),
        ];
        let times =
            times.into_iter().filter(|(_, time)| !time.is_zero()).map(|(key, time)| (key, duration::show(time)));
        let rates = rates.into_iter().filter(|(_, rate)| rate.0 > 0).map(|(key, rate)| (key, rate.to_string()));
        let refuse = self.refuse.map(|time| ("refuse", duration::show(time)));
        times.chain(rates).chain(refuse).collect()
    }

    /// The JSON object that [`from_json`] reads.
    pub(crate) fn to_json(&self) -> Value {
        Value::Object(
            self.parts().into_iter().map(|(key, value)| (key.to_owned(), json!(value))).collect::<Map<_, _>>(),
        )
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.parts();
        if parts.is_empty() {
            return f.write_str("none");
        }
        let parts: Vec<String> = parts.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        f.write_str(&parts.join(","))
    }
}
