//! The server's name: stands in a header value, in a metric label and in a `key=value` of the ready line, so it is
//! kept to characters that mean nothing in any of them.

use hyper::header::HeaderValue;

/// What a name looks like, for messages.
pub(crate) const EXPECTED: &str = "1 to 64 letters, digits, dots, dashes, underscores or colons";

const LENGTH_MAX: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    text: String,
    header: HeaderValue,
}

impl Name {
    /// # Errors
    /// [`EXPECTED`] when `text` is no name.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte);
        if text.is_empty() || text.len() > LENGTH_MAX || !text.bytes().all(plain) {
            return Err(EXPECTED);
        }
        let header = HeaderValue::from_str(text).map_err(|_| EXPECTED)?;
        Ok(Self { text: text.to_owned(), header })
    }

    /// The name of a server that was given none.
    pub(crate) fn of_port(port: u16) -> Self {
        Self::parse(&format!("server-{port}")).expect("letters, a dash and digits are a name")
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn header(&self) -> HeaderValue {
        self.header.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_are_taken() {
        for text in ["a", "server-8081", "Blue_2.local:80", &"x".repeat(64)] {
            assert_eq!(Name::parse(text).expect(text).as_str(), text);
        }
        for text in ["", "a b", "a\n", "ä", "a=b", "a\"b", "a/b", &"x".repeat(65)] {
            assert_eq!(Name::parse(text), Err(EXPECTED), "{text:?}");
        }
        assert_eq!(Name::of_port(8081).as_str(), "server-8081");
    }
}
