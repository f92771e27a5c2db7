//! Reads server-sent events (the HTML standard, "Interpreting an event stream") out of pieces of any size.

/// One event that carries data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SseEvent {
    /// `message` when the stream does not say.
    pub(crate) name: String,
    pub(crate) data: String,
}

/// The stream holds something that can be no event of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SseError {
    TooLong,
    NotUtf8,
}

/// A status of thousands of backends is a few MiB; what is longer would only fill memory.
const LONGEST_EVENT: usize = 16 * 1024 * 1024;

/// Push bytes in, take events out.
#[derive(Debug, Default)]
pub(crate) struct SseReader {
    line: Vec<u8>,
    /// The last byte was CR: a LF that follows belongs to it.
    after_cr: bool,
    name: String,
    data: String,
}

impl SseReader {
    /// # Errors
    /// When an event is too long or not UTF-8; the reader is of no use afterwards.
    pub(crate) fn push(&mut self, bytes: &[u8], mut each: impl FnMut(SseEvent)) -> Result<(), SseError> {
        for &byte in bytes {
            let joins_cr = std::mem::replace(&mut self.after_cr, byte == b'\r') && byte == b'\n';
            match byte {
                b'\n' if joins_cr => {}
                b'\n' | b'\r' => {
                    if let Some(event) = self.end_line()? {
                        each(event);
                    }
                }
                _ if self.line.len() + self.data.len() >= LONGEST_EVENT => return Err(SseError::TooLong),
                _ => self.line.push(byte),
            }
        }
        Ok(())
    }

    fn end_line(&mut self) -> Result<Option<SseEvent>, SseError> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            return Ok(self.end_event());
        }
        let line = std::str::from_utf8(&line).map_err(|_| SseError::NotUtf8)?;
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            // Comments have an empty field name; `id` and `retry` mean nothing to us, we resume by a new snapshot.
            _ => {}
        }
        Ok(None)
    }

    fn end_event(&mut self) -> Option<SseEvent> {
        let name = std::mem::take(&mut self.name);
        let mut data = std::mem::take(&mut self.data);
        // Every data line was given one line end; the last does not belong to the event.
        data.pop()?;
        Some(SseEvent { name: if name.is_empty() { "message".to_owned() } else { name }, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> Vec<(String, String)> {
        let mut reader = SseReader::default();
        let mut events = Vec::new();
        for piece in pieces {
            reader.push(piece, |event| events.push((event.name, event.data))).unwrap();
        }
        events
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(name, data)| ((*name).to_owned(), (*data).to_owned())).collect()
    }

    #[test]
    fn events_are_read_whatever_their_line_ends() {
        let expected = pairs(&[("snapshot", "{}"), ("delta", "1\n2"), ("message", "x")]);
        let text = "event: snapshot\nid: 7\ndata: {}\n\n: comment\nevent:delta\ndata:1\ndata: 2\n\ndata: x\n\n";
        for line_end in ["\n", "\r", "\r\n"] {
            assert_eq!(read(&[text.replace('\n', line_end).as_bytes()]), expected, "{line_end:?}");
        }
    }

    #[test]
    fn the_size_of_pieces_does_not_matter() {
        let text = "event: délta\r\ndata: {\"a\": 1}\r\n\r\ndata: y\r\n\r\n".as_bytes();
        let expected = pairs(&[("délta", "{\"a\": 1}"), ("message", "y")]);
        for size in 1..text.len() {
            assert_eq!(read(&text.chunks(size).collect::<Vec<_>>()), expected, "{size}");
        }
    }

    #[test]
    fn what_carries_no_data_is_no_event() {
        assert_eq!(read(&[b"event: delta\n\n: ping\n\nretry: 5\n\n\n\ndata: half"]), pairs(&[]));
        assert_eq!(read(&[b"data\n\n"]), pairs(&[("message", "")]));
    }

    #[test]
    fn garbage_is_refused() {
        let mut reader = SseReader::default();
        assert_eq!(reader.push(b"data: \xff\n\n", |_| {}), Err(SseError::NotUtf8));
        let mut reader = SseReader::default();
        assert_eq!(reader.push(&vec![b'x'; LONGEST_EVENT + 1], |_| {}), Err(SseError::TooLong));
    }
}
