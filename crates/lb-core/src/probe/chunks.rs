//! The chunked coding (RFC 9112 §7.1), taken apart byte by byte in constant memory. What the proxy refuses of a response is
//! refused here.

/// Bytes of extensions, with the blanks before them, and of the trailer section together: what has more is no answer to a
/// check. Sizes need no limit of their own: a body has one, and each chunk a byte of it at least.
const MOST_BESIDE: u32 = 16 * 1024;

/// RFC 9112 §7.1 sets no limit; the proxy takes as many digits as a number of 64 bits has.
const MOST_DIGITS: u32 = 16;

/// A size with its extensions, as for proxied responses.
const MOST_LINE: u32 = 1024;

/// Trailer fields, as for proxied responses.
const MOST_TRAILERS: u32 = 64;

/// Where in the coding the next byte stands.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    place: Place,
    /// Of the current chunk, still to come.
    left: u64,
    /// Of the size that is being read.
    digits: u32,
    /// Of the line that the size stands in.
    line: u32,
    beside: u32,
    trailers: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Before the first digit of a size.
    #[default]
    Size,
    /// Behind one.
    Digits,
    /// Between a size and its extensions, of which there must be one.
    Blank,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the start of a line behind the last chunk.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerLf,
    LastLf,
    Through,
}

impl Place {
    /// Whether what leads here is neither a size nor content.
    fn is_beside(self) -> bool {
        use Place::{Blank, Extension, LastLf, Trailer, TrailerLf, TrailerName, TrailerValue};
        matches!(self, Blank | Extension | Trailer | TrailerName | TrailerValue | TrailerLf | LastLf)
    }
}

/// What stands next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A piece of the content, not empty.
    Data(&'a [u8]),
    /// Nothing; more must come.
    More,
    /// The end of the body.
    End,
}

impl Chunks {
    /// Takes what stands next off the front of `bytes`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Found<'a>, &'static str> {
        loop {
            if self.place == Place::Data {
                let now = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                let (piece, rest) = bytes.split_at(now);
                (*bytes, self.left) = (rest, self.left - now as u64);
                if self.left == 0 {
                    self.place = Place::DataCr;
                }
                return Ok(if piece.is_empty() { Found::More } else { Found::Data(piece) });
            }
            let Some((byte, rest)) = bytes.split_first() else { return Ok(Found::More) };
            *bytes = rest;
            self.place = self.step(*byte)?;
            self.beside += u32::from(self.place.is_beside());
            if self.beside > MOST_BESIDE {
                return Err("more chunk extensions and trailers than an answer needs");
            }
            if self.place == Place::Through {
                return Ok(Found::End);
            }
        }
    }

    fn step(&mut self, byte: u8) -> Result<Place, &'static str> {
        use Place::{
            Blank, Data, DataCr, DataLf, Digits, Extension, LastLf, Size, SizeLf, Through, Trailer, TrailerLf,
            TrailerName, TrailerValue,
        };
        if matches!(self.place, Size | Digits | Blank | Extension) && byte != b'\r' {
            self.line = if self.place == Size { 1 } else { self.line + 1 };
            if self.line > MOST_LINE {
                return Err("a chunk line that is too long");
            }
        }
        Ok(match (self.place, byte) {
            (Size | Digits, byte) if byte.is_ascii_hexdigit() => {
                self.digits = if self.place == Size { 1 } else { self.digits + 1 };
                if self.digits > MOST_DIGITS {
                    return Err("a chunk size with too many digits");
                }
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                self.left =
                    self.left.checked_mul(16).and_then(|left| left.checked_add(digit)).ok_or("a chunk too large")?;
                Digits
            }
            (Digits, b'\r') | (Extension, b'\r') => SizeLf,
            // RFC 9112 §7.1.1: blanks may only come before a semicolon.
            (Digits | Blank, b' ' | b'\t') => Blank,
            (Digits | Blank, b';') => Extension,
            (Extension, byte) if is_visible(byte) => Extension,
            (SizeLf, b'\n') if self.left == 0 => Trailer,
            (SizeLf, b'\n') => Data,
            (DataCr, b'\r') => DataLf,
            (DataLf, b'\n') => Size,
            (Trailer, b'\r') => LastLf,
            (Trailer, _) if self.trailers == MOST_TRAILERS => return Err("too many trailers"),
            (Trailer, byte) if is_token(byte) => {
                self.trailers += 1;
                TrailerName
            }
            (TrailerName, byte) if is_token(byte) => TrailerName,
            (TrailerName, b':') => TrailerValue,
            (TrailerValue, byte) if is_visible(byte) => TrailerValue,
            (TrailerValue, b'\r') => TrailerLf,
            (TrailerLf, b'\n') => Trailer,
            (LastLf, b'\n') => Through,
            _ => return Err("a malformed chunk"),
        })
    }
}

/// RFC 9110 §5.5: of the control characters only HTAB.
fn is_visible(byte: u8) -> bool {
    byte == b'\t' || (b' '..=b'~').contains(&byte) || byte >= 0x80
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
