//! What happens to what is under way at a backend that an operator takes out.

use std::time::Duration;

use lb_core::api::AtDeadline;

use super::validate::Judge;

/// The drain of one backend; that of the whole process is `timeouts.drain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainConfig {
    /// From the operator's word; `None` is for ever.
    pub deadline: Option<Duration>,
    pub at_deadline: AtDeadline,
}

impl Judge<'_> {
    pub(super) fn drain(&mut self) -> DrainConfig {
        let deadline = Some(self.duration("drain.deadline")).filter(|deadline| !deadline.is_zero());
        let at_deadline = match self.text("drain.at_deadline", |text| ["wait", "close"].contains(&text)).as_str() {
            "close" => AtDeadline::Close,
            _ => AtDeadline::Wait,
        };
        if at_deadline == AtDeadline::Close && deadline.is_none() {
            let words = "needs a moment to close at, but drain.deadline is 0s, which is never; give one, or wait";
            self.refuse_given("drain.at_deadline", words);
        }
        DrainConfig { deadline, at_deadline }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{parse_with, problems};
    use super::*;

    #[test]
    fn nothing_is_cut_unless_somebody_says_so() {
        assert_eq!(parse_with(&[], &[]).unwrap().drain.at_deadline, AtDeadline::Wait);
        let args = ["--drain-deadline", "90s", "--drain-at-deadline", "close"];
        let drain = DrainConfig { deadline: Some(Duration::from_secs(90)), at_deadline: AtDeadline::Close };
        assert_eq!(parse_with(&args, &[]).unwrap().drain, drain);
        assert_eq!(parse_with(&["--drain-deadline", "0s"], &[]).unwrap().drain.deadline, None);
    }

    #[test]
    fn closing_at_no_moment_is_refused_and_both_keys_are_named() {
        let found = problems("[drain]\ndeadline = \"0s\"\nat_deadline = \"close\"\n");
        assert!(found.contains("drain.at_deadline") && found.contains("drain.deadline is 0s"), "{found}");
        assert!(problems("[drain]\nat_deadline = \"kill\"\n").contains("expected one of wait, close"));
    }
}
