//! Forged books: each lie must be found, and nothing else.

use super::super::ident::Id;
use super::*;

const RUN: u64 = 42;

fn id(number: u64) -> Id {
    Id { run: RUN, number }
}

/// A request that went well, in all three books.
fn well(number: u64, post: bool) -> (Asked, Executed, Line) {
    let hash = number * 1000;
    let answer = Answer { status: 200, id: Some(id(number)), heard: Some(hash), body: Body::Right };
    let asked = Asked { number, post, hash, at_us: 1, took_us: 2, end: End::Answered(answer) };
    let executed = Executed { id: id(number), deed: Deed::Whole, post, hash, at_us: 3, origin: 0 };
    let line = Line {
        id: Some(id(number)),
        status: 200,
        reason: String::new(),
        attempts: 1,
        complete: true,
        ended: "complete".to_owned(),
    };
    (asked, executed, line)
}

struct Books {
    asked: Vec<Asked>,
    executed: Vec<Executed>,
    lines: Vec<Line>,
}

fn books() -> Books {
    let mut books = Books { asked: vec![], executed: vec![], lines: vec![] };
    for number in 1..=10 {
        let (asked, executed, line) = well(number, number % 2 == 0);
        books.asked.push(asked);
        books.executed.push(executed);
        books.lines.push(line);
    }
    books
}

impl Books {
    fn check(&self) -> Findings {
        check(&self.asked, &self.executed, Log::Lines(&self.lines))
    }

    fn answer(&mut self, at: usize) -> &mut Answer {
        match &mut self.asked[at].end {
            End::Answered(answer) => answer,
            End::Failed(..) => panic!("it failed"),
        }
    }
}

#[test]
fn true_books_are_sound() {
    let findings = books().check();
    assert_eq!(findings, Findings { asked: 10, ..Findings::default() });
    assert!(findings.is_sound());
}

#[test]
fn each_lie_is_found_once() {
    type Lie = fn(&mut Books);
    type Count = fn(&Findings) -> u64;
    let invented: Count = |f| f.invented;
    let (doubled, mixed_up, unexplained): (Count, Count, Count) = (|f| f.doubled, |f| f.mixed_up, |f| f.unexplained);
    let lies: [(&str, Lie, Count); 15] = [
        ("a 2xx that nobody executed", |b| b.executed.truncate(9), invented),
        ("another body was executed", |b| b.executed[0].hash += 1, invented),
        ("only a broken request was seen", |b| b.executed[0].deed = Deed::Broken, invented),
        ("the origin heard another body", |b| b.answer(0).heard = Some(7), invented),
        ("a POST was executed twice", |b| b.executed.push(b.executed[1]), doubled),
        ("another's answer", |b| b.answer(0).id = Some(id(2)), mixed_up),
        ("another's body", |b| b.answer(0).body = Body::Wrong, mixed_up),
        ("a part that looks whole", |b| b.answer(0).body = Body::Short, mixed_up),
        ("what is not HTTP", |b| b.asked[0].end = End::Failed(Why::Garbage, None), mixed_up),
        ("it hung", |b| b.asked[0].end = End::Failed(Why::Hung, None), |f| f.hung),
        ("two lines", |b| b.lines.push(b.lines[0].clone()), unexplained),
        ("another status in the log", |b| b.lines[0].status = 502, unexplained),
        ("the log says it broke off", |b| b.lines[0].complete = false, unexplained),
        ("a failure without a reason", |b| b.asked[0].end = End::Failed(Why::Cut, Some(200)), unexplained),
        ("an execution that the proxy does not know", |b| b.executed.push(well(99, false).1), unexplained),
    ];
    for (what, lie, count) in lies {
        let mut books = books();
        lie(&mut books);
        // What is said to have hung has a line that says all went well: that is found as well, and rightly.
        let findings = books.check();
        assert_eq!(count(&findings), 1, "{what}: {findings:?}");
        assert!(!findings.is_sound() && !findings.examples.is_empty(), "{what}");
    }
}

#[test]
fn a_request_without_a_line_is_unexplained_unless_it_never_arrived() {
    let mut forged = books();
    forged.lines.remove(0);
    // The request, and its execution.
    assert_eq!(forged.check().unexplained, 2);
    forged.executed.remove(0);
    forged.asked[0].end = End::Failed(Why::Dropped, None);
    assert_eq!(forged.check().unexplained, 1);
    forged.asked[0].end = End::Failed(Why::Connect, None);
    assert_eq!(forged.check().unexplained, 0);
}

#[test]
fn a_failure_with_its_reason_is_counted_and_no_lie() {
    let mut books = books();
    books.executed.remove(0);
    books.asked[0].end = End::Answered(Answer { status: 502, id: None, heard: None, body: Body::Wrong });
    books.lines[0] = Line { status: 502, reason: "upstream_closed".to_owned(), attempts: 2, ..books.lines[0].clone() };
    let findings = books.check();
    assert_eq!((findings.failed_get, findings.failed_post, findings.retried), (1, 0, 1));
    assert_eq!(findings.why(), "1 × GET 502 upstream_closed");
    assert!(findings.is_sound(), "{findings:?}");
}

#[test]
fn of_a_post_that_failed_it_is_told_how_far_it_got() {
    let mut books = books();
    for at in [1, 3, 5, 6] {
        books.asked[at].end = End::Failed(Why::Dropped, None);
        (books.lines[at].status, books.lines[at].complete) = (502, true);
        books.lines[at].reason = "upstream_closed".to_owned();
    }
    books.executed[3].deed = Deed::Broken;
    books.executed.remove(5);
    let findings = books.check();
    assert_eq!(findings.fates, Fates { executed: 1, in_hand: 1, unread: 1 }, "GETs do not count");
    assert_eq!((findings.failed_post, findings.failed_get, findings.is_sound()), (3, 1, true), "{findings:?}");
}

#[test]
fn an_idempotent_request_may_be_executed_twice() {
    let mut books = books();
    books.executed.push(books.executed[0]);
    assert!(books.check().is_sound());
}

#[test]
fn an_early_answer_needs_no_equal_hash() {
    let mut books = books();
    books.executed[1].deed = Deed::Early;
    books.executed[1].hash = 0;
    books.answer(1).heard = None;
    assert!(books.check().is_sound(), "{:?}", books.check());
}

#[test]
fn without_a_log_the_rest_is_still_checked() {
    let mut books = books();
    books.lines.clear();
    books.executed.push(books.executed[1]);
    let findings = check(&books.asked, &books.executed, Log::Absent);
    assert_eq!((findings.doubled, findings.unexplained), (1, 0));
}

#[test]
fn a_book_is_read_as_it_was_written() {
    let (_, executed, _) = well(7, true);
    let text = executed.to_string();
    assert_eq!(Executed::parse(&text), Some(executed));
    for end in 0..text.len() - 1 {
        // The last number may lose digits only where none is left.
        assert_eq!(Executed::parse(&text[..end]), None, "{}", &text[..end]);
    }
}

#[test]
fn a_log_line_is_read_and_nonsense_is_told() {
    let text = r#"{"time":"t","id":"abc","target":"/00000000-0000-002a-0000-000000000007/12","status":502,
        "reason":"upstream_closed","attempts":2,"ended":"complete"}"#;
    let line = Line::parse(text).unwrap();
    assert_eq!((line.id, line.status, line.attempts, line.complete), (Some(id(7)), 502, 2, true));
    assert!(line.explains_a_failure());
    assert!(Line::parse("{\"time\":").unwrap_err().contains("{\"time\":"));
}

#[test]
fn who_was_turned_away_unread_needs_a_line_without_a_number() {
    let mut books = books();
    let refused = Answer { status: 503, id: None, heard: None, body: Body::Wrong };
    books.asked[0].end = End::Answered(refused);
    books.asked[1].end = End::Failed(Why::Dropped, None);
    books.executed.drain(..2);
    books.lines.drain(..2);
    assert_eq!(books.check().unexplained, 2, "nothing was logged");
    let unread = Line { id: None, status: 503, reason: "overloaded".to_owned(), ..books.lines[0].clone() };
    books.lines.push(unread.clone());
    assert_eq!(books.check().unexplained, 1, "a line explains one");
    books.lines.push(unread);
    let findings = books.check();
    assert!(findings.is_sound(), "{findings:?}");
    assert_eq!(findings.why(), "1 × GET 503 at the door, 1 × POST 503 at the door");
    // Whoever got an answer from a server was read.
    books.asked[0].end = End::Answered(Answer { id: Some(id(1)), ..refused });
    assert_eq!(books.check().unexplained, 1);
}
