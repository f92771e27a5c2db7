//! Whether what was seen is what is accepted.

/// What came of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The first final status; `None` when there was none.
    pub status: Option<u16>,
    pub closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    /// A 2xx that is accepted, but was not the first choice.
    Warn,
    Fail,
}

/// Judges by alternatives, which `or` or `/` separate: a status, `2xx`, `close` (without a response), `timeout` (open,
/// no answer), `2xx + close` (both), `!101` (anything but a switch of protocols).
pub(crate) fn judge(accepted: &str, outcome: Outcome) -> Verdict {
    let is_2xx = outcome.status.is_some_and(|status| (200..300).contains(&status));
    let alternatives = accepted.split(" or ").flat_map(|part| part.split('/')).map(str::trim);
    for (place, alternative) in alternatives.enumerate() {
        let fits = match alternative {
            "2xx" => is_2xx,
            "2xx + close" => is_2xx && outcome.closed,
            "close" => outcome.status.is_none() && outcome.closed,
            "timeout" => outcome.status.is_none() && !outcome.closed,
            "!101" => outcome.status.is_some_and(|status| status != 101),
            status => outcome.status == Some(status.parse().expect("an outcome is a status or one of these words")),
        };
        if fits {
            return if alternative == "2xx" && place > 0 { Verdict::Warn } else { Verdict::Pass };
        }
    }
    Verdict::Fail
}

#[test]
fn outcomes_are_judged_by_their_alternatives() {
    let seen = |status, closed| Outcome { status, closed };
    for (accepted, outcome, verdict) in [
        ("400", seen(Some(400), true), Verdict::Pass),
        ("400", seen(None, true), Verdict::Fail),
        ("400 or close", seen(None, true), Verdict::Pass),
        ("400/close/timeout", seen(None, false), Verdict::Pass),
        ("400 or 2xx", seen(Some(204), false), Verdict::Warn),
        ("2xx or 400", seen(Some(200), false), Verdict::Pass),
        ("400 or 2xx/404", seen(Some(404), false), Verdict::Pass),
        ("2xx + close", seen(Some(200), false), Verdict::Fail),
        ("2xx + close", seen(Some(200), true), Verdict::Pass),
        ("!101", seen(Some(101), false), Verdict::Fail),
        ("!101", seen(Some(400), true), Verdict::Pass),
    ] {
        assert_eq!(judge(accepted, outcome), verdict, "{accepted}: {outcome:?}");
    }
}
