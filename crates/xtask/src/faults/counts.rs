//! What the books of many requests come to in numbers, as it is kept in JSON for every kind of run. Pure.

use serde::{Deserialize, Serialize};

use super::ledger::{Fates, Findings};

/// Sums over requests; see [`Findings`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Counts {
    pub(super) failed_get: u64,
    pub(super) failed_post: u64,
    pub(super) doubled: u64,
    /// Answers that are another's, cut ones that looked whole, and such as nobody executed.
    pub(super) mixed_up: u64,
    pub(super) hung: u64,
    /// Requests without their log line, or lines without theirs; ours alone.
    pub(super) unexplained: u64,
    pub(super) retried: u64,
    /// Of `failed_post`. Results from before this was asked for have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) fates: Option<Fates>,
}

impl From<&Findings> for Counts {
    fn from(findings: &Findings) -> Self {
        Self {
            failed_get: findings.failed_get,
            failed_post: findings.failed_post,
            doubled: findings.doubled,
            mixed_up: findings.mixed_up + findings.invented,
            hung: findings.hung,
            unexplained: findings.unexplained,
            retried: findings.retried,
            fates: Some(findings.fates),
        }
    }
}

impl Counts {
    pub(super) fn add(&mut self, other: &Self) {
        self.failed_get += other.failed_get;
        self.failed_post += other.failed_post;
        self.doubled += other.doubled;
        self.mixed_up += other.mixed_up;
        self.hung += other.hung;
        self.unexplained += other.unexplained;
        self.retried += other.retried;
        if let Some(fates) = other.fates {
            self.fates.get_or_insert_default().add(fates);
        }
    }

    pub(super) const fn failed(&self) -> u64 {
        self.failed_get + self.failed_post
    }

    /// Whether nothing failed, and nothing went wrong.
    pub(super) const fn is_clean(&self) -> bool {
        self.failed() + self.doubled + self.mixed_up + self.hung + self.unexplained == 0
    }

    /// What had become of the POSTs that failed; empty when none did, or nobody asked.
    pub(super) fn fates(&self) -> String {
        match self.fates {
            Some(Fates { executed, in_hand, unread }) if executed + in_hand + unread > 0 => format!(
                "of {} POSTs that failed, their server had executed {executed}, had {in_hand} in hand, and had not read \
                 {unread}",
                self.failed_post
            ),
            _ => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_kept_beside_what_else_a_run_says_and_older_ones_are_read() {
        let old = r#"{"failed_get":1,"failed_post":2,"doubled":0,"mixed_up":0,"hung":0,"unexplained":0,"retried":3}"#;
        let mut counts: Counts = serde_json::from_str(old).unwrap();
        assert_eq!((serde_json::to_string(&counts).unwrap().as_str(), counts.fates().as_str()), (old, ""));
        let fates = Fates { executed: 1, in_hand: 2, unread: 0 };
        let findings = Findings { failed_post: 3, invented: 1, fates, ..Findings::default() };
        counts.add(&Counts::from(&findings));
        assert_eq!((counts.failed(), counts.mixed_up, counts.is_clean()), (6, 1, false));
        assert!(counts.fates().contains("had executed 1, had 2 in hand, and had not read 0"));
    }
}
