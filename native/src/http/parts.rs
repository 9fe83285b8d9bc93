//! Heads of HTTP/2 messages, as the rules see and change them.

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};

use super::edit::Editable;
use super::rules::Message;

/// A head that is lent; what its kind does not have is missing.
pub struct Head<'a> {
    pub headers: &'a mut HeaderMap,
    uri: Option<&'a mut Uri>,
    method: Option<&'a mut Method>,
    status: Option<&'a mut StatusCode>,
}

impl<'a> Head<'a> {
    pub fn request(parts: &'a mut http::request::Parts) -> Self {
        Self {
            headers: &mut parts.headers,
            uri: Some(&mut parts.uri),
            method: Some(&mut parts.method),
            status: None,
        }
    }

    pub fn response(parts: &'a mut http::response::Parts) -> Self {
        Self {
            headers: &mut parts.headers,
            uri: None,
            method: None,
            status: Some(&mut parts.status),
        }
    }

    /// HTTP/2 has the host in front of the path, where there is one.
    fn set_authority(&mut self, host: &str) -> bool {
        let Some(uri) = self
            .uri
            .as_deref_mut()
            .filter(|uri| uri.authority().is_some())
        else {
            return false;
        };
        let Ok(authority) = host.parse() else {
            return false;
        };
        let mut parts = uri.clone().into_parts();
        parts.authority = Some(authority);
        if let Ok(changed) = Uri::from_parts(parts) {
            *uri = changed;
        }
        self.headers.remove(http::header::HOST);
        true
    }

    fn target(&self) -> &str {
        let target = self.uri.as_ref().and_then(|uri| uri.path_and_query());
        target.map_or("", PathAndQuery::as_str)
    }
}

impl Message for Head<'_> {
    fn path(&self) -> &str {
        self.target()
    }

    fn method(&self) -> &str {
        self.method.as_ref().map_or("", |method| method.as_str())
    }

    fn has_header(&self, name: &str, value: &str) -> bool {
        if name.eq_ignore_ascii_case("host") {
            // HTTP/2 has it in front of the path.
            let authority = self.uri.as_ref().and_then(|uri| uri.authority());
            if authority.is_some_and(|authority| authority.as_str() == value) {
                return true;
            }
        }
        let mut found = self.headers.get_all(name).iter();
        found.any(|found| found.as_bytes() == value.as_bytes())
    }
}

impl Editable for Head<'_> {
    fn header(&self, name: &str) -> Option<String> {
        let value = self.headers.get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    }

    fn set_header(&mut self, name: &str, value: &str) {
        if name.eq_ignore_ascii_case("host") && self.set_authority(value) {
            return;
        }
        if let Some((name, value)) = field(name, value) {
            self.headers.insert(name, value);
        }
    }

    fn add_header(&mut self, name: &str, value: &str) {
        if let Some((name, value)) = field(name, value) {
            self.headers.append(name, value);
        }
    }

    fn remove_header(&mut self, name: &str) {
        self.headers.remove(name);
    }

    fn path(&self) -> String {
        self.target().to_owned()
    }

    fn set_path(&mut self, path: &str) {
        let Some(uri) = self.uri.as_deref_mut() else {
            return;
        };
        let Ok(path) = path.replace(' ', "%20").parse::<PathAndQuery>() else {
            return; // as it was: HTTP/2 has no way to say this one
        };
        let mut parts = std::mem::take(uri).into_parts();
        parts.path_and_query = Some(path);
        *uri = Uri::from_parts(parts).unwrap_or_default();
    }

    fn set_method(&mut self, method: &str) {
        if let (Some(into), Ok(method)) = (self.method.as_deref_mut(), method.parse()) {
            *into = method;
        }
    }

    fn set_code(&mut self, code: u16) {
        if let (Some(into), Ok(code)) = (self.status.as_deref_mut(), StatusCode::from_u16(code)) {
            *into = code;
        }
    }
}

/// A header as HTTP/2 has it; None where it has no such thing, as those about the connection.
pub fn field(name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    const OF_CONNECTIONS: [&str; 5] = [
        "connection",
        "transfer-encoding",
        "upgrade",
        "keep-alive",
        "proxy-connection",
    ];
    let name: HeaderName = name.parse().ok()?;
    let value = HeaderValue::from_bytes(value.as_bytes()).ok()?;
    (!OF_CONNECTIONS.contains(&name.as_str())).then_some((name, value))
}
