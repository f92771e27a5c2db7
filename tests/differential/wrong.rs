//! What was found wrong: counted by what it is, with the first few of each kind in words.

use std::collections::BTreeMap;
use std::fmt;

/// More of one kind are not needed to understand it.
const EXAMPLES: usize = 3;

#[derive(Debug, Default)]
pub(crate) struct Wrong(BTreeMap<&'static str, (u64, Vec<String>)>);

/// One thing: what it is, and the case.
pub(crate) type Finding = (&'static str, String);

impl Wrong {
    pub(crate) fn add(&mut self, (kind, words): Finding) {
        let (count, examples) = self.0.entry(kind).or_default();
        *count += 1;
        if examples.len() < EXAMPLES {
            examples.push(words);
        }
    }

    pub(crate) fn extend(&mut self, other: Self) {
        for (kind, (count, examples)) in other.0 {
            let (sum, all) = self.0.entry(kind).or_default();
            *sum += count;
            let room = EXAMPLES.saturating_sub(all.len());
            all.extend(examples.into_iter().take(room));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, (count, examples)) in &self.0 {
            writeln!(f, "  {count} × {kind}")?;
            examples.iter().try_for_each(|words| writeln!(f, "    {words}"))?;
        }
        Ok(())
    }
}

#[test]
fn each_kind_is_counted_and_shown_by_a_few() {
    let (mut wrong, mut more) = (Wrong::default(), Wrong::default());
    (0..5).for_each(|n| wrong.add(("lost", n.to_string())));
    more.add(("found", "x".to_owned()));
    more.add(("lost", "9".to_owned()));
    wrong.extend(more);
    assert_eq!(wrong.to_string(), "  1 × found\n    x\n  6 × lost\n    0\n    1\n    2\n");
    assert!(!wrong.is_empty() && Wrong::default().is_empty());
}
