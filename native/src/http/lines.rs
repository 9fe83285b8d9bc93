//! A head of HTTP/1.1 as lines, to be changed; lines that nobody changes stay as they came.

use super::edit::Editable;

pub struct Lines {
    /// First line, in three parts.
    start: [String; 3],
    is_request: bool,
    /// Headers, without their line ends.
    fields: Vec<Vec<u8>>,
}

impl Lines {
    /// Takes a whole head apart that was parsed before.
    pub fn new(head: &[u8], is_request: bool) -> Self {
        let lines = head.split(|&byte| byte == b'\n');
        let mut lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let mut lines = lines.by_ref().skip_while(|line| line.is_empty());
        let first = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
        let mut parts = first.splitn(3, ' ').map(str::to_owned);
        let start = std::array::from_fn(|_| parts.next().unwrap_or_default());
        let fields = lines
            .filter(|line| !line.is_empty())
            .map(<[u8]>::to_vec)
            .collect();
        Self {
            start,
            is_request,
            fields,
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.start.join(" ").into_bytes();
        for field in &self.fields {
            bytes.extend_from_slice(b"\r\n");
            bytes.extend_from_slice(field);
        }
        bytes.extend_from_slice(b"\r\n\r\n");
        bytes
    }

    /// Says that a body of `length` bytes follows, and no other way of telling its end.
    pub fn set_length(&mut self, length: usize) {
        self.remove_header("transfer-encoding");
        self.remove_header("trailer");
        self.set_header("Content-Length", &length.to_string());
    }

    /// Takes back an offer to go on in HTTP/2, as an intermediary may: so the connection stays one
    /// that we read.
    pub fn stay_http1(&mut self) {
        self.remove_header("upgrade");
        self.remove_header("http2-settings");
        let Some(connection) = self.header("connection") else {
            return;
        };
        let gone = |word: &&str| {
            !["upgrade", "http2-settings"].contains(&word.to_ascii_lowercase().as_str())
        };
        let kept: Vec<&str> = connection.split(',').map(str::trim).filter(gone).collect();
        match kept.is_empty() {
            true => self.remove_header("connection"),
            false => self.set_header("Connection", &kept.join(", ")),
        }
    }

    fn is_named(field: &[u8], name: &str) -> bool {
        field.len() > name.len()
            && field[name.len()] == b':'
            && field[..name.len()].eq_ignore_ascii_case(name.as_bytes())
    }
}

impl Editable for Lines {
    fn header(&self, name: &str) -> Option<String> {
        let found = self
            .fields
            .iter()
            .find(|field| Self::is_named(field, name))?;
        Some(
            String::from_utf8_lossy(&found[name.len() + 1..])
                .trim()
                .to_owned(),
        )
    }

    fn set_header(&mut self, name: &str, value: &str) {
        let place = self
            .fields
            .iter()
            .position(|field| Self::is_named(field, name));
        self.remove_header(name);
        let place = place.unwrap_or(self.fields.len());
        self.fields
            .insert(place, format!("{name}: {value}").into_bytes());
    }

    fn add_header(&mut self, name: &str, value: &str) {
        self.fields.push(format!("{name}: {value}").into_bytes());
    }

    fn remove_header(&mut self, name: &str) {
        self.fields.retain(|field| !Self::is_named(field, name));
    }

    fn path(&self) -> String {
        self.start[1].clone()
    }

    fn set_path(&mut self, path: &str) {
        // What would end the line or the target early goes in escaped.
        self.start[1] = path.replace(' ', "%20");
    }

    fn set_method(&mut self, method: &str) {
        method.clone_into(&mut self.start[0]);
    }

    fn set_code(&mut self, code: u16) {
        debug_assert!(!self.is_request);
        let known = http::StatusCode::from_u16(code).ok();
        let reason = known.and_then(|known| known.canonical_reason());
        self.start[1] = code.to_string();
        reason.unwrap_or("Replaced").clone_into(&mut self.start[2]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"GET /a?b HTTP/1.1\r\nhOST:  x \r\nX-A: 1\r\nB: 2\r\nx-a: 3\r\n\r\n";

    fn text(lines: &Lines) -> String {
        String::from_utf8(lines.bytes()).unwrap()
    }

    #[test]
    fn what_is_not_changed_stays_as_it_came() {
        assert_eq!(Lines::new(HEAD, true).bytes(), HEAD);
    }

    #[test]
    fn a_header_that_is_set_takes_the_place_of_all_of_its_name() {
        let mut lines = Lines::new(HEAD, true);
        lines.set_header("x-A", "9");
        lines.add_header("b", "4");
        lines.set_path("/c d");
        assert_eq!(
            text(&lines),
            "GET /c%20d HTTP/1.1\r\nhOST:  x \r\nx-A: 9\r\nB: 2\r\nb: 4\r\n\r\n"
        );
    }

    #[test]
    fn a_code_brings_its_own_reason() {
        let mut lines = Lines::new(b"HTTP/1.1 200 All is well\r\nA: b\r\n\r\n", false);
        lines.set_code(503);
        assert_eq!(
            text(&lines),
            "HTTP/1.1 503 Service Unavailable\r\nA: b\r\n\r\n"
        );
    }

    #[test]
    fn an_offer_of_http2_can_be_taken_back() {
        let offer = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM\r\n\r\n";
        let mut lines = Lines::new(offer, true);
        lines.stay_http1();
        assert_eq!(text(&lines), "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    }
}
