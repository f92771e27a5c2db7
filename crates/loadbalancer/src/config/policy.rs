//! How requests are shared out among a pool's backends.

use lb_core::policy::PolicyKind;

use super::validate::Judge;

/// Their names, as the option lists them.
pub(super) const NAMES: &[&str] =
    &[PolicyKind::RoundRobin.as_str(), PolicyKind::LeastRequests.as_str(), PolicyKind::PeakEwma.as_str()];

impl Judge<'_> {
    /// Reads it.
    pub(super) fn policy(&mut self) -> PolicyKind {
        let named = |text: &str| PolicyKind::ALL.into_iter().find(|kind| kind.as_str() == text);
        self.value("pool.policy", named).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{file, parse_with};
    use super::*;

    #[test]
    fn round_robin_unless_something_else_is_said() {
        assert_eq!(parse_with(&[], &[]).unwrap().pool.policy, PolicyKind::RoundRobin);
        let (_guard, path) = file("[[pool]]\npolicy = \"least_requests\"\nbackends = [\"a:1\"]\n");
        assert_eq!(parse_with(&["--config", &path], &[]).unwrap().pool.policy, PolicyKind::LeastRequests);
        let variable = [("LB_POLICY", "least_requests")];
        assert_eq!(parse_with(&[], &variable).unwrap().pool.policy, PolicyKind::LeastRequests);
        let flag = ["--policy", "round_robin"];
        assert_eq!(parse_with(&flag, &variable).unwrap().pool.policy, PolicyKind::RoundRobin);
        assert_eq!(NAMES.len(), PolicyKind::ALL.len(), "each has its name in the list");
    }

    #[test]
    fn an_unknown_one_is_refused_with_those_there_are() {
        let error = parse_with(&["--policy", "leastconn"], &[]).unwrap_err().to_string();
        for word in ["--policy", "leastconn", "round_robin", "least_requests", "peak_ewma"] {
            assert!(error.contains(word), "{error}");
        }
    }
}
