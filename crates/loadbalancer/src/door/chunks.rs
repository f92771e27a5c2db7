//! The chunked coding of a request body (RFC 9112 §7.1), watched while it passes: sizes are 1 to 16 hex digits, lines
//! end in CRLF, extensions and trailers are bounded, and nothing is repaired. The bytes go on unchanged; the parser
//! decodes them.

use lb_core::metrics::Rejected;

/// An extension means nothing to us (RFC 9112 §7.1.1: ignored); more of it is an attack.
const MOST_EXTENSION: u32 = 1024;
const MOST_EXTENSIONS: u32 = 16 * 1024;

/// The trailer section. hyper's own bounds are no tighter.
const MOST_TRAILER_BYTES: u32 = 16 * 1024;
const MOST_TRAILERS: u32 = 64;

/// What the next byte is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Next {
    /// A size's first digit.
    #[default]
    Size,
    /// A further digit, or what may stand behind them.
    Digit,
    /// White space behind a size: only `;` may follow (RFC 9112 §7.1.1).
    Space,
    Extension,
    /// The LF of a size line.
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// A trailer's first byte, or the end.
    Trailer,
    /// Within a trailer's name.
    Name,
    Value,
    ValueLf,
    LastLf,
    Done,
}

/// Watches one body.
#[derive(Debug)]
pub(super) struct ChunkWatch {
    next: Next,
    digits: u32,
    /// Of the current chunk: its size, then what is left of it.
    left: u64,
    /// How much more data the body may have.
    allowance: u64,
    extension: u32,
    extensions: u32,
    trailer_bytes: u32,
    trailers: u32,
}

impl ChunkWatch {
    /// A body of at most `most` bytes of data.
    pub(super) fn new(most: u64) -> Self {
        Self {
            next: Next::Size,
            digits: 0,
            left: 0,
            allowance: most,
            extension: 0,
            extensions: 0,
            trailer_bytes: 0,
            trailers: 0,
        }
    }

    /// How much of `received` belongs to the body, and whether that is its end.
    ///
    /// # Errors
    /// Why it is refused.
    pub(super) fn pass(&mut self, received: &[u8]) -> Result<(usize, bool), Rejected> {
        let mut at = 0;
        while at < received.len() {
            if self.next == Next::Data {
                let here = usize::try_from(self.left).unwrap_or(usize::MAX).min(received.len() - at);
                self.left -= here as u64;
                at += here;
                if self.left == 0 {
                    self.next = Next::DataCr;
                }
                continue;
            }
            self.next = self.step(received[at])?;
            at += 1;
            if self.next == Next::Done {
                return Ok((at, true));
            }
        }
        Ok((at, false))
    }

    fn step(&mut self, byte: u8) -> Result<Next, Rejected> {
        Ok(match (self.next, byte) {
            (Next::Size | Next::Digit, _) if byte.is_ascii_hexdigit() => self.digit(byte)?,
            (Next::Digit, b'\r') | (Next::Extension, b'\r') => Next::SizeLf,
            (Next::Digit, b' ' | b'\t') | (Next::Space, b' ' | b'\t') => self.count_extension(Next::Space)?,
            (Next::Digit | Next::Space, b';') => self.count_extension(Next::Extension)?,
            (Next::Extension, _) if is_text(byte) => self.count_extension(Next::Extension)?,
            (Next::SizeLf, b'\n') => self.size_read()?,
            (Next::DataCr, b'\r') => Next::DataLf,
            (Next::DataLf, b'\n') => Next::Size,
            (Next::Trailer, b'\r') => Next::LastLf,
            (Next::LastLf, b'\n') => Next::Done,
            // RFC 9112 §5.2: no folding here either, and §5.1: no white space before the colon.
            (Next::Trailer | Next::Name, _) if byte > b' ' && byte < 0x7f && byte != b':' => {
                self.trailer(Next::Name)?
            }
            (Next::Name, b':') => {
                self.trailers += 1;
                self.trailer(Next::Value)?
            }
            (Next::Value, b'\r') => Next::ValueLf,
            (Next::Value, _) if is_text(byte) => self.trailer(Next::Value)?,
            (Next::ValueLf, b'\n') => Next::Trailer,
            _ => return Err(Rejected::Chunk),
        })
    }

    /// RFC 9112 §7.1: 1*HEXDIG. Sixteen cannot overflow.
    fn digit(&mut self, digit: u8) -> Result<Next, Rejected> {
        self.digits += 1;
        if self.digits > 16 {
            return Err(Rejected::Chunk);
        }
        self.left = self.left << 4 | u64::from(char::from(digit).to_digit(16).unwrap_or_default());
        Ok(Next::Digit)
    }

    fn size_read(&mut self) -> Result<Next, Rejected> {
        self.allowance = self.allowance.checked_sub(self.left).ok_or(Rejected::BodyTooLarge)?;
        self.digits = 0;
        self.extension = 0;
        Ok(if self.left == 0 { Next::Trailer } else { Next::Data })
    }

    fn count_extension(&mut self, next: Next) -> Result<Next, Rejected> {
        self.extension += 1;
        self.extensions += 1;
        if self.extension > MOST_EXTENSION || self.extensions > MOST_EXTENSIONS {
            return Err(Rejected::Chunk);
        }
        Ok(next)
    }

    fn trailer(&mut self, next: Next) -> Result<Next, Rejected> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > MOST_TRAILER_BYTES || self.trailers > MOST_TRAILERS {
            return Err(Rejected::Chunk);
        }
        Ok(next)
    }
}

/// RFC 9110 §5.5: visible characters, SP, HTAB and obs-text.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}
