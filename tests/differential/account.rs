//! The reckoning: what clients got, what the balancer's access log says it forwarded, and what the server says it
//! read are the same requests.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use serde_json::Value;

use super::campaign::{Tally, hash};
use super::ledger::{Form, Row};
use super::wrong::{Finding, Wrong};

/// A line of the access log.
struct Line {
    method: String,
    target: String,
    status: u64,
    reason: String,
    port: u16,
    attempts: u64,
    request_bytes: u64,
    is_complete: bool,
    /// The server broke its answer off.
    broke: bool,
    /// Whether the server has it too.
    seen: bool,
}

/// What is left of a campaign at one server.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// Requests that the balancer says it sent on, and of these those that the server says it read.
    pub attempted: u64,
    pub read: u64,
    /// Sent on, but the server turned them away, or the client did not send them to their end.
    pub turned_away: u64,
    pub broken_off: u64,
    /// Replies of the balancer's own, by status and reason.
    pub replies: HashMap<String, u64>,
    pub wrong: Wrong,
}

/// Compares all three.
pub(crate) fn settle(log: &Path, rows: &[Row], form: Form, tally: &Tally) -> Account {
    let mut account = Account::default();
    let mut lines = read_log(log, &mut account);
    let mut nameless = 0;
    for row in rows {
        if row.id.is_empty() {
            // A head that the server did not like. Had it read a whole request, that would be one too many.
            nameless += 1;
            if row.status < 400 {
                account.wrong.add(("the server read a request that has no id", format!("{row:?}")));
            }
            continue;
        }
        match lines.get_mut(&row.id) {
            None => account.wrong.add(("the server read what the balancer does not know", format!("{row:?}"))),
            Some(line) if line.seen => account.wrong.add(("the server read one request twice", format!("{row:?}"))),
            Some(line) => {
                line.seen = true;
                if let Some(finding) = different(line, row, form) {
                    account.wrong.add(finding);
                }
            }
        }
        if row.is_answered()
            && let Some(echo) = tally.echoes.get(&row.id)
            && hash(&row.body) != echo.body_hash
            && !(form == Form::Nginx && row.body.is_empty() && echo.body_hash == hash(b"-"))
        {
            account.wrong.add(("the server read another body than the client sent", format!("{row:?}")));
        }
    }
    for (id, echo) in &tally.echoes {
        let Some(line) = lines.get(id) else {
            account.wrong.add(("an answer that is not in the log", id.clone()));
            continue;
        };
        if line.port != echo.port {
            let words = format!("{id}: client {}, in the log client {}", echo.port, line.port);
            account.wrong.add(("an answer to another client", words));
        }
        if !line.seen || !(200..300).contains(&line.status) {
            let words = format!("{id}: {} in the log, read by the server: {}", line.status, line.seen);
            account.wrong.add(("an answer that the log or the server does not know", words));
        }
    }
    let broken = lines.values().filter(|line| line.broke).count() as u64;
    if tally.cut > broken {
        let words = format!("{} of them, the log has {broken}", tally.cut);
        account.wrong.add(("answers broke off that the balancer takes for whole", words));
    }
    sum_up(&lines, nameless, &mut account);
    account
}

fn sum_up(lines: &HashMap<String, Line>, nameless: u64, account: &mut Account) {
    for (id, line) in lines {
        if !line.reason.is_empty() {
            *account.replies.entry(format!("{} {}", line.status, line.reason)).or_default() += 1;
        }
        if line.attempts == 0 {
            continue;
        }
        if line.status == 504 {
            let Line { method, target, .. } = line;
            account
                .wrong
                .add(("no answer in time, and each of these servers answers", format!("{id}: {method} {target}")));
        }
        account.attempted += 1;
        if line.attempts > 1 {
            account.wrong.add(("several attempts, and retries are off", format!("{id}: {}", line.attempts)));
        }
        if line.seen {
            account.read += 1;
        } else if line.reason.is_empty() && line.status >= 400 {
            account.turned_away += 1;
        } else if !line.reason.is_empty() || !line.is_complete {
            account.broken_off += 1;
        } else {
            let Line { method, target, status, .. } = line;
            account
                .wrong
                .add(("answered, but the server did not read it", format!("{id}: {method} {target}, {status}")));
        }
    }
    if nameless > account.turned_away + account.broken_off {
        let account_for = account.turned_away + account.broken_off;
        let words = format!("{nameless}, the balancer knows of {account_for}");
        account.wrong.add(("the server turned more away than were sent", words));
    }
}

/// How what the server read differs from what was forwarded.
fn different(line: &Line, row: &Row, form: Form) -> Option<Finding> {
    let Line { method, target, request_bytes, .. } = line;
    if line.attempts == 0 {
        return Some(("the server read what was not sent on", format!("{row:?}")));
    }
    if !form.same_method(method, &row.method) || !form.same_target(target, &row.target) {
        return Some((
            "the server read another method or target than was sent on",
            format!("{method} {target}: {row:?}"),
        ));
    }
    // A server may turn away what it has not read to its end; nobody may take a part for the whole.
    let whole = form.same_length(*request_bytes, row);
    let words = || format!("{request_bytes} bytes: {row:?}");
    (row.is_answered() && !whole).then(|| ("the server read another length than was sent on", words()))
}

fn read_log(path: &Path, account: &mut Account) -> HashMap<String, Line> {
    let file = std::fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut lines = HashMap::new();
    let mut unnamed = HashMap::<String, u64>::new();
    for text in BufReader::new(file).lines() {
        let text = text.expect("the access log is ASCII");
        let Ok(value) = serde_json::from_str::<Value>(&text) else {
            account.wrong.add(("a line of the access log is no JSON", text));
            continue;
        };
        let line = line(&value);
        let id = value["id"].as_str().unwrap_or_default().to_owned();
        if !id.is_empty() {
            if lines.insert(id, line).is_some() {
                account.wrong.add(("two lines of the access log with one id", text));
            }
            continue;
        }
        *unnamed.entry(format!("{} {}", line.status, line.reason)).or_default() += 1;
        if line.attempts > 0 {
            account.wrong.add(("sent on without an id", text));
        }
    }
    account.replies = unnamed;
    lines
}

fn line(value: &Value) -> Line {
    let text = |key: &str| value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}")).to_owned();
    let number = |key: &str| value[key].as_u64().unwrap_or_else(|| panic!("no {key} in {value}"));
    let port = text("peer").rsplit(':').next().and_then(|port| port.parse().ok());
    Line {
        method: text("method"),
        target: text("target"),
        status: number("status"),
        reason: text("reason"),
        port: port.unwrap_or_else(|| panic!("no port in {value}")),
        attempts: number("attempts"),
        request_bytes: number("request_bytes"),
        is_complete: text("ended") == "complete",
        broke: text("ended") == "backend_broke",
        seen: false,
    }
}
