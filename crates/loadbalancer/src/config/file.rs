//! The TOML file: read with positions, every key looked up in the table of options, lowered to [`Raw`].

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::options::{OPTIONS, by_key};
use super::raw::{Given, Origin, Problem, Raw, Wrong};

/// Lowers the text of file `name`. Whatever could be read is returned along with every problem found.
pub(super) fn lower(name: &str, text: &str) -> (Raw, Vec<Problem>) {
    let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let mut reader = Reader { name, text, lines, raw: Raw::default(), problems: Vec::new() };
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let at = error.span().map_or(0, |span| span.start);
        reader.problem(at, "", None, error.message().to_owned());
    }
    for (key, value) in table.get_ref() {
        reader.section(key, value);
    }
    (reader.raw, reader.problems)
}

struct Reader<'a> {
    name: &'a str,
    text: &'a str,
    /// Where each line begins: every value has its place told, and a search from the top for each takes minutes in a file
    /// of a hundred thousand lines.
    lines: Vec<usize>,
    raw: Raw,
    problems: Vec<Problem>,
}

type Key<'i> = Spanned<std::borrow::Cow<'i, str>>;

impl Reader<'_> {
    fn origin(&self, at: usize) -> Origin {
        let at = at.min(self.text.len());
        let line = self.lines.partition_point(|start| *start <= at);
        let column = self.text[self.lines[line - 1]..at].chars().count() + 1;
        Origin::File(self.name.to_owned(), line, column)
    }

    fn problem(&mut self, at: usize, key: &str, value: Option<String>, words: String) {
        let origin = self.origin(at);
        self.problems.push(Problem { wrong: Wrong::Value, origin, key: key.to_owned(), value, words });
    }

    /// A top-level key: a table of options, or the pools.
    fn section(&mut self, key: &Key<'_>, value: &Spanned<DeValue<'_>>) {
        let name = key.get_ref().as_ref();
        match value.get_ref() {
            DeValue::Array(pools) if name == "pool" => self.pools(key, pools),
            DeValue::Table(_) if name == "pool" => {
                self.problem(key.span().start, name, None, "expected [[pool]], with two brackets".to_owned());
            }
            DeValue::Table(table) => {
                for (inner, value) in table {
                    self.option(&format!("{name}.{}", inner.get_ref()), inner, value);
                }
            }
            _ => self.option(name, key, value),
        }
    }

    fn option(&mut self, path: &str, key: &Key<'_>, value: &Spanned<DeValue<'_>>) {
        let known = by_key(path).filter(|option| option.key != "pool.backends");
        let Some(option) = known else {
            return self.unknown(path, key.span().start, OPTIONS.iter().map(|option| option.key));
        };
        if let Some(given) = self.value(path, value) {
            self.raw.values.insert(option.key, given);
        }
    }

    fn pools(&mut self, key: &Key<'_>, pools: &DeArray<'_>) {
        if pools.len() > 1 {
            self.problem(key.span().start, "pool", None, "only one [[pool]] can be given".to_owned());
        }
        for pool in pools.iter().take(1) {
            let DeValue::Table(table) = pool.get_ref() else {
                self.problem(pool.span().start, "pool", None, "expected [[pool]] and keys below it".to_owned());
                continue;
            };
            for (key, value) in table {
                match key.get_ref().as_ref() {
                    "name" => self.raw.pool_name = self.value("pool.name", value),
                    "backends" => self.backends(value),
                    other => self.pool_option(&format!("pool.{other}"), key, value),
                }
            }
        }
    }

    fn pool_option(&mut self, path: &str, key: &Key<'_>, value: &Spanned<DeValue<'_>>) {
        let Some(option) = by_key(path) else {
            let known = OPTIONS.iter().map(|option| option.key).filter(|key| key.starts_with("pool."));
            return self.unknown(path, key.span().start, std::iter::once("pool.name").chain(known));
        };
        if let Some(given) = self.value(path, value) {
            self.raw.values.insert(option.key, given);
        }
    }

    /// Backends as strings, or as tables with `address`, `weight` and `name`: both become the string form.
    fn backends(&mut self, value: &Spanned<DeValue<'_>>) {
        let at = value.span().start;
        let DeValue::Array(list) = value.get_ref() else {
            return self.problem(at, "pool.backends", None, "expected a list".to_owned());
        };
        let mut texts = Vec::new();
        for entry in list {
            let origin = self.origin(entry.span().start);
            match entry.get_ref() {
                DeValue::String(text) => texts.push((text.clone().into_owned(), origin)),
                DeValue::Table(table) => {
                    if let Some(text) = self.backend_table(entry.span().start, table) {
                        texts.push((text, origin));
                    }
                }
                _ => self.problem(
                    entry.span().start,
                    "pool.backends",
                    None,
                    "expected \"HOST:PORT\" or { address = \"HOST:PORT\", weight = 1, name = \"X\" }".to_owned(),
                ),
            }
        }
        let given = Given { texts, origin: self.origin(at) };
        self.raw.values.insert("pool.backends", given);
    }

    fn backend_table(&mut self, at: usize, table: &DeTable<'_>) -> Option<String> {
        let (mut address, mut attributes) = (None, String::new());
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let path = format!("pool.backends.{name}");
            if !["address", "weight", "name"].contains(&name) {
                let known = ["pool.backends.address", "pool.backends.weight", "pool.backends.name"];
                self.unknown(&path, key.span().start, known.into_iter());
                continue;
            }
            let Some(given) = self.value(&path, value) else { continue };
            let text = given.texts.into_iter().next().map(|(text, _)| text).unwrap_or_default();
            if text.contains(',') {
                self.problem(value.span().start, &path, Some(text), "may not contain a comma".to_owned());
            } else if name == "address" {
                address = Some(text);
            } else {
                attributes.push_str(&format!(",{name}={text}"));
            }
        }
        if address.is_none() {
            self.problem(at, "pool.backends", None, "a backend needs address = \"HOST:PORT\"".to_owned());
        }
        address.map(|address| address + &attributes)
    }

    /// A scalar, or a list of strings, as text.
    fn value(&mut self, path: &str, value: &Spanned<DeValue<'_>>) -> Option<Given> {
        let at = value.span().start;
        let origin = self.origin(at);
        let scalar = |value: &DeValue<'_>| match value {
            DeValue::String(text) => Some(text.clone().into_owned()),
            DeValue::Integer(number) => Some(number.to_string()),
            DeValue::Float(number) => Some(number.to_string()),
            DeValue::Boolean(switch) => Some(switch.to_string()),
            _ => None,
        };
        if let Some(text) = scalar(value.get_ref()) {
            return Some(Given::one(text, origin));
        }
        if let DeValue::Array(list) = value.get_ref() {
            let entries = list.iter().map(|entry| Some((scalar(entry.get_ref())?, self.origin(entry.span().start))));
            if let Some(texts) = entries.collect() {
                return Some(Given { texts, origin });
            }
        }
        self.problem(at, path, None, format!("a {} cannot stand here", value.get_ref().type_str()));
        None
    }

    fn unknown(&mut self, path: &str, at: usize, known: impl Iterator<Item = &'static str>) {
        let far = path.len().max(4) / 3;
        // Nothing is nearer than the lengths are: a key of a megabyte is not compared with all that there are.
        let length = path.chars().count();
        let near = known
            .filter(|key| !key.is_empty() && key.len().abs_diff(length) <= far)
            .map(|key| (distance(path, key), key))
            .min()
            .filter(|(distance, _)| *distance <= far);
        let hint = near.map(|(_, key)| format!("; did you mean {key}?")).unwrap_or_default();
        self.problem(at, path, None, format!("there is no such key{hint}"));
    }
}

/// Levenshtein's distance, for `did you mean`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, cb) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
