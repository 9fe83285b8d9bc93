//! Where a body of HTTP/1.1 ends (RFC 9112, sections 6 and 7).

/// The rest of a body, seen byte by byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes more; 0 is the end.
    Length(u64),
    Chunked(Chunks),
    /// Until the connection ends.
    UntilEnd,
}

/// Where in a chunked body we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunks {
    /// In a line with a size, of which the digits so far say this.
    Size {
        size: u64,
        digits: u32,
        over: bool,
    },
    /// In the data, so many bytes before its end.
    Data(u64),
    /// In the line end behind data.
    Behind,
    /// In the trailers; so many bytes into a line.
    Trailer(u64),
    Done,
}

const NEXT_SIZE: Chunks = Chunks::Size {
    size: 0,
    digits: 0,
    over: false,
};

impl Framing {
    pub const NONE: Self = Self::Length(0);

    pub fn chunked() -> Self {
        Self::Chunked(NEXT_SIZE)
    }

    pub fn done(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunks::Done))
    }

    /// How many of these bytes belong to the body; they are past then.
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, &'static str> {
        match self {
            Self::Length(left) => {
                let count = (*left).min(bytes.len() as u64);
                *left -= count;
                Ok(count as usize)
            }
            Self::UntilEnd => Ok(bytes.len()),
            Self::Chunked(chunks) => chunks.take(bytes, &mut |_| {}),
        }
    }

    /// The data in a body that is there as a whole.
    pub fn decode(&self, bytes: &[u8]) -> Result<Vec<u8>, &'static str> {
        let mut data = Vec::with_capacity(bytes.len());
        match self {
            Self::Chunked(chunks) => {
                chunks
                    .clone()
                    .take(bytes, &mut |part| data.extend_from_slice(part))?;
            }
            _ => data.extend_from_slice(bytes),
        }
        Ok(data)
    }
}

impl Chunks {
    fn take(&mut self, bytes: &[u8], data: &mut dyn FnMut(&[u8])) -> Result<usize, &'static str> {
        let mut at = 0;
        while at < bytes.len() && *self != Self::Done {
            if let Self::Data(left) = self {
                let count = (*left).min((bytes.len() - at) as u64);
                data(&bytes[at..at + count as usize]);
                at += count as usize;
                *left -= count;
                if *left == 0 {
                    *self = Self::Behind;
                }
                continue;
            }
            *self = self.step(bytes[at])?;
            at += 1;
        }
        Ok(at)
    }

    fn step(&self, byte: u8) -> Result<Self, &'static str> {
        Ok(match (self.clone(), byte) {
            (Self::Size { digits: 0, .. }, b'\n') => return Err("a chunk without a size"),
            (Self::Size { size: 0, .. }, b'\n') => Self::Trailer(0),
            (Self::Size { size, .. }, b'\n') => Self::Data(size),
            (
                Self::Size {
                    size,
                    digits,
                    over: false,
                },
                byte,
            ) if byte.is_ascii_hexdigit() => {
                if digits == 15 {
                    return Err("a chunk beyond all size");
                }
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                Self::Size {
                    size: size << 4 | u64::from(digit),
                    digits: digits + 1,
                    over: false,
                }
            }
            // Extensions, and the \r.
            (Self::Size { size, digits, .. }, _) => Self::Size {
                size,
                digits,
                over: true,
            },
            (Self::Behind, b'\r') => Self::Behind,
            (Self::Behind, b'\n') => NEXT_SIZE,
            (Self::Behind, _) => return Err("a chunk longer than its size"),
            (Self::Trailer(0), b'\n') => Self::Done,
            (Self::Trailer(_), b'\n') => Self::Trailer(0),
            (Self::Trailer(count), b'\r') => Self::Trailer(count),
            (Self::Trailer(count), _) => Self::Trailer(count + 1),
            (state, _) => state,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Framing;

    const BODY: &[u8] =
        b"4\r\nWiki\r\n6;ext=\"a\"\r\npedia \r\nE\r\nin \r\n\r\nchunks.\r\n0\r\nA: b\r\n\r\n";

    #[test]
    fn a_chunked_body_ends_where_it_ends_however_it_is_cut() {
        for cut in 0..BODY.len() {
            let mut framing = Framing::chunked();
            assert_eq!(framing.take(&BODY[..cut]), Ok(cut));
            assert!(!framing.done(), "{cut}");
            let rest = [&BODY[cut..], b"GET"].concat();
            assert_eq!(framing.take(&rest), Ok(BODY.len() - cut));
            assert!(framing.done(), "{cut}");
        }
    }

    #[test]
    fn a_chunked_body_is_decoded() {
        let data = Framing::chunked().decode(BODY).unwrap();
        assert_eq!(data, b"Wikipedia in \r\n\r\nchunks.");
    }

    #[test]
    fn a_body_of_known_length_ends_after_it() {
        let mut framing = Framing::Length(5);
        assert_eq!(framing.take(b"abc"), Ok(3));
        assert!(!framing.done());
        assert_eq!(framing.take(b"deGET"), Ok(2));
        assert!(framing.done());
    }

    #[test]
    fn broken_chunks_are_errors() {
        for broken in [&b"\r\n"[..], b"3\r\nabcd\r\n", b"fffffffffffffffff\r\n"] {
            assert!(Framing::chunked().take(broken).is_err(), "{broken:?}");
        }
    }
}
