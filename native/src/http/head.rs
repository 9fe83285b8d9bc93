//! Heads of HTTP/1.1 messages, as they stand in a buffer.

use std::mem::MaybeUninit;
use std::sync::Arc;

use super::framing::Framing;
use super::rules::{Armed, Message, Scope};

/// As much as nginx, HAProxy and Apache take together; what is longer is not HTTP to us.
pub const LONGEST: usize = 256 << 10;
const HEADERS: usize = 128;

pub enum Parsed<T> {
    Whole(T),
    /// More is to come.
    Part,
    /// No HTTP/1.
    Foreign,
}

/// What must be known of a request to pass it on.
pub struct Request {
    pub length: usize,
    pub framing: Framing,
    /// As its client asks.
    pub asks_head: bool,
    /// As its server sees it.
    pub is_head: bool,
    pub is_connect: bool,
    pub expects: bool,
    pub offers_h2c: bool,
    /// A rule may have to read its answer, which it lets the server encode.
    pub is_to_be_read: bool,
    /// Rules that take it.
    pub taken: Vec<Arc<Armed>>,
    /// Rules that may take its response.
    pub awaiting: Vec<Arc<Armed>>,
}

pub struct Response {
    pub length: usize,
    pub code: u16,
    pub framing: Framing,
    /// Rules that take it.
    pub taken: Vec<Arc<Armed>>,
}

impl Request {
    /// Would its client take the end of this response for elsewhere than its server does, as one
    /// was asked for a head alone, and the other was not?
    pub fn is_misread(&self, response: &Response) -> bool {
        let tunnel = response.code == 101 || self.is_connect;
        self.asks_head != self.is_head && !tunnel
    }
}

struct Headers<'a, 'b> {
    path: &'a str,
    method: &'a str,
    headers: &'a [httparse::Header<'b>],
}

impl Message for Headers<'_, '_> {
    fn path(&self) -> &str {
        self.path
    }

    fn method(&self) -> &str {
        self.method
    }

    fn has_header(&self, name: &str, value: &str) -> bool {
        let mut found = self
            .headers
            .iter()
            .filter(|header| header.name.eq_ignore_ascii_case(name));
        found.any(|header| header.value == value.as_bytes())
    }
}

/// What headers say about the message itself.
#[derive(Default)]
struct Said {
    length: Option<u64>,
    chunked: bool,
    encoded: bool,
    expects: bool,
    offers_h2c: bool,
    accepts: bool,
}

impl Said {
    fn of(headers: &[httparse::Header]) -> Option<Self> {
        let mut said = Self::default();
        for header in headers {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            match header.name.len() {
                14 if is("content-length") => {
                    let length = number(header.value)?;
                    if said.length.is_some_and(|before| before != length) {
                        return None; // whichever we took, the server may take the other
                    }
                    said.length = Some(length);
                }
                17 if is("transfer-encoding") => {
                    let text = std::str::from_utf8(header.value).ok()?;
                    let last = text.rsplit(',').next().unwrap_or_default().trim();
                    said.encoded = true;
                    said.chunked = last.eq_ignore_ascii_case("chunked");
                }
                6 if is("expect") => {
                    said.expects = header.value.eq_ignore_ascii_case(b"100-continue")
                }
                15 if is("accept-encoding") => said.accepts = header.value != b"identity",
                7 if is("upgrade") => said.offers_h2c = header.value.eq_ignore_ascii_case(b"h2c"),
                _ => {}
            }
        }
        Some(said)
    }
}

/// Digits and nothing else: a sign, which Rust takes, is no length to a server.
fn number(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value)
        .ok()
        .filter(|_| digits)?
        .parse()
        .ok()
}

/// Reads the head of a request, and asks the rules of its port about it.
pub fn request(bytes: &[u8], scope: Option<&Arc<Scope>>) -> Parsed<Request> {
    let mut space = [const { MaybeUninit::uninit() }; HEADERS];
    let mut parsed = httparse::Request::new(&mut []);
    let length = match parsed.parse_with_uninit_headers(bytes, &mut space) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Parsed::Part,
        Err(_) => return Parsed::Foreign,
    };
    let Some(said) = Said::of(parsed.headers) else {
        return Parsed::Foreign;
    };
    let framing = match (said.encoded, said.chunked, said.length) {
        // Nobody knows where these end: some servers of HTTP/1.0 have no encodings.
        (true, chunked, _) if !chunked || parsed.version == Some(0) => return Parsed::Foreign,
        (true, ..) => Framing::chunked(),
        (false, _, length) => Framing::Length(length.unwrap_or(0)),
    };
    let method = parsed.method.unwrap_or_default();
    let mut request = Request {
        length,
        framing,
        asks_head: method == "HEAD",
        is_head: method == "HEAD",
        is_connect: method == "CONNECT",
        expects: said.expects,
        offers_h2c: said.offers_h2c,
        is_to_be_read: false,
        taken: Vec::new(),
        awaiting: Vec::new(),
    };
    if let Some(scope) = scope {
        let seen = Headers {
            path: path_of(parsed.path.unwrap_or_default()),
            method,
            headers: parsed.headers,
        };
        // Calls of gRPC are HTTP/2.
        let fits = |armed: &&Arc<Armed>| armed.rule.grpc.is_none() && armed.fits_request(&seen);
        let taken = scope
            .requests
            .iter()
            .filter(fits)
            .filter(|armed| armed.takes());
        request.taken = taken.cloned().collect();
        request.awaiting = scope.responses.iter().filter(fits).cloned().collect();
        let mut awaiting = request.awaiting.iter();
        request.is_to_be_read = said.accepts && awaiting.any(|armed| armed.rule.patches_body());
    }
    Parsed::Whole(request)
}

/// Reads the head of a response to `request`.
pub fn response(bytes: &[u8], request: &Request) -> Parsed<Response> {
    let mut space = [const { MaybeUninit::uninit() }; HEADERS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length = match config.parse_response_with_uninit_headers(&mut parsed, bytes, &mut space) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Parsed::Part,
        Err(_) => return Parsed::Foreign,
    };
    let Some(said) = Said::of(parsed.headers) else {
        return Parsed::Foreign;
    };
    let code = parsed.code.unwrap_or_default();
    let tunnel = code == 101 || request.is_connect && code / 100 == 2;
    let framing = match (said.encoded, said.chunked, said.length) {
        _ if tunnel => Framing::UntilEnd,
        _ if request.is_head || code / 100 == 1 || code == 204 || code == 304 => Framing::NONE,
        (true, true, _) if parsed.version == Some(1) => Framing::chunked(),
        (false, _, Some(length)) => Framing::Length(length),
        _ => Framing::UntilEnd,
    };
    let mut taken = Vec::new();
    if !request.awaiting.is_empty() && code >= 200 && !tunnel {
        let seen = Headers {
            path: "",
            method: "",
            headers: parsed.headers,
        };
        let awaiting = request.awaiting.iter();
        let fits = awaiting.filter(|armed| armed.fits_response(code, &seen));
        taken = fits.filter(|armed| armed.takes()).cloned().collect();
    }
    Parsed::Whole(Response {
        length,
        code,
        framing,
        taken,
    })
}

/// The path of a request target, which may be a whole URL.
fn path_of(target: &str) -> &str {
    match target.find("://") {
        Some(at) if !target.starts_with('/') => {
            let rest = &target[at + 3..];
            rest.find('/').map_or("/", |at| &rest[at..])
        }
        _ => target,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole<T>(parsed: Parsed<T>) -> T {
        match parsed {
            Parsed::Whole(found) => found,
            _ => panic!("not whole"),
        }
    }

    fn asked(text: &str) -> Request {
        whole(request(text.as_bytes(), None))
    }

    fn answered(text: &str, to: &Request) -> Framing {
        whole(response(text.as_bytes(), to)).framing
    }

    #[test]
    fn a_request_has_a_body_only_where_it_says_so() {
        assert_eq!(asked("GET / HTTP/1.1\r\n\r\n").framing, Framing::NONE);
        assert_eq!(
            asked("PUT / HTTP/1.1\r\nContent-Length: 7\r\n\r\n").framing,
            Framing::Length(7)
        );
        let chunked = asked(
            "PUT / HTTP/1.1\r\ncontent-length: 3\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n",
        );
        assert_eq!(chunked.framing, Framing::chunked());
    }

    #[test]
    fn a_response_ends_as_its_request_and_code_say() {
        let (get, head) = (
            asked("GET / HTTP/1.1\r\n\r\n"),
            asked("HEAD / HTTP/1.1\r\n\r\n"),
        );
        let sized = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(answered(sized, &get), Framing::Length(5));
        assert_eq!(answered(sized, &head), Framing::NONE);
        assert_eq!(answered("HTTP/1.0 200 OK\r\n\r\n", &get), Framing::UntilEnd);
        assert_eq!(
            answered("HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\n", &get),
            Framing::NONE
        );
        assert_eq!(
            answered("HTTP/1.1 101 x\r\nUpgrade: websocket\r\n\r\n", &get),
            Framing::UntilEnd
        );
        let connect = asked("CONNECT a:1 HTTP/1.1\r\n\r\n");
        assert_eq!(
            answered("HTTP/1.1 200 x\r\n\r\n", &connect),
            Framing::UntilEnd
        );
    }

    #[test]
    fn what_is_cut_short_is_a_part_and_what_is_none_is_foreign() {
        assert!(matches!(
            request(b"GET / HTTP/1.1\r\nHost", None),
            Parsed::Part
        ));
        assert!(matches!(
            request(b"\x16\x03\x01\x02", None),
            Parsed::Foreign
        ));
    }

    #[test]
    fn a_request_that_servers_end_in_different_places_is_foreign() {
        for told in [
            "Content-Length: x",
            "Content-Length: +5",
            "Content-Length: 5, 5",
            "Content-Length: 5\r\nContent-Length: 6",
            "Content-Length:",
            "Transfer-Encoding: gzip",
            "Transfer-Encoding: chunked, gzip",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            "Transfer-Encoding: \u{b}chunked",
            "Transfer-Encoding : chunked",
            "A: b\r\n folded",
        ] {
            let head = format!("PUT / HTTP/1.1\r\n{told}\r\n\r\n");
            let parsed = request(head.as_bytes(), None);
            assert!(matches!(parsed, Parsed::Foreign), "{told}");
        }
        let old = b"PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert!(matches!(request(old, None), Parsed::Foreign));
        let twice = asked("PUT / HTTP/1.1\r\nContent-Length: 5\r\ncontent-length: 5\r\n\r\n");
        assert_eq!(twice.framing, Framing::Length(5));
    }

    #[test]
    fn a_whole_url_has_a_path_too() {
        assert_eq!(path_of("http://a:80/b?c"), "/b?c");
        assert_eq!(path_of("http://a"), "/");
        assert_eq!(path_of("/b?u=http://a/c"), "/b?u=http://a/c");
    }
}
