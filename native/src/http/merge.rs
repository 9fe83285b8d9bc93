//! JSON merge patch (RFC 7396) on text: what the patch does not name stays as it is written, and a
//! large body takes no more room than its text does.

use std::fmt;

use serde::de::{Error, MapAccess, Visitor};
use serde::Deserializer;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// Merges `patch` into a text; the error is that it is no JSON.
pub fn merge(text: &[u8], patch: &Value) -> serde_json::Result<Vec<u8>> {
    let text: &RawValue = serde_json::from_slice(text)?;
    let mut merged = Vec::with_capacity(text.get().len() + 1024);
    write(&mut merged, text.get(), patch)?;
    Ok(merged)
}

fn write(into: &mut Vec<u8>, text: &str, patch: &Value) -> serde_json::Result<()> {
    let Value::Object(patch) = patch else {
        return serde_json::to_writer(into, patch);
    };
    // What is no object is put aside for one.
    let text = if text.starts_with('{') { text } else { "{}" };
    serde_json::Deserializer::from_str(text).deserialize_map(Merging { into, patch })
}

/// Writes an object, member by member, as they are read.
struct Merging<'a> {
    into: &'a mut Vec<u8>,
    patch: &'a Map<String, Value>,
}

impl Merging<'_> {
    /// Begins a member.
    fn name(&mut self, name: &str) -> serde_json::Result<()> {
        if !self.into.ends_with(b"{") {
            self.into.push(b',');
        }
        serde_json::to_writer(&mut *self.into, name)?;
        self.into.push(b':');
        Ok(())
    }

    fn merge(&mut self, name: &str, text: &str, patch: &Value) -> serde_json::Result<()> {
        self.name(name)?;
        write(self.into, text, patch)
    }
}

impl<'de> Visitor<'de> for Merging<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        let mut left: Vec<&String> = self.patch.keys().collect();
        self.into.push(b'{');
        while let Some(name) = members.next_key::<String>()? {
            let value: &RawValue = members.next_value()?;
            left.retain(|one| **one != name);
            let written = match self.patch.get(&name) {
                Some(Value::Null) => Ok(()),
                Some(patch) => self.merge(&name, value.get(), patch),
                None => self
                    .name(&name)
                    .map(|()| self.into.extend_from_slice(value.get().as_bytes())),
            };
            written.map_err(A::Error::custom)?;
        }
        for name in left {
            let patch = &self.patch[name];
            if !patch.is_null() {
                self.merge(name, "null", patch).map_err(A::Error::custom)?;
            }
        }
        self.into.push(b'}');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn merged(text: &str, patch: &Value) -> String {
        String::from_utf8(merge(text.as_bytes(), patch).unwrap()).unwrap()
    }

    #[test]
    fn a_merge_patch_does_what_the_standard_shows() {
        for (target, patch, merged) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": "b"}),
                json!({"b": "c"}),
                json!({"a": "b", "b": "c"}),
            ),
            (
                json!({"a": "b", "b": "c"}),
                json!({"a": null}),
                json!({"b": "c"}),
            ),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (
                json!({"e": null}),
                json!({"a": 1}),
                json!({"e": null, "a": 1}),
            ),
            (
                json!([1, 2]),
                json!({"a": "b", "c": null}),
                json!({"a": "b"}),
            ),
            (
                json!({}),
                json!({"a": {"bb": {"ccc": null}}}),
                json!({"a": {"bb": {}}}),
            ),
        ] {
            let found = merge(target.to_string().as_bytes(), &patch).unwrap();
            let found: Value = serde_json::from_slice(&found).unwrap();
            assert_eq!(found, merged, "{target} {patch}");
        }
    }

    #[test]
    fn what_is_not_named_stays_as_it_is_written() {
        let text = r#" {"z": 12345678901234567890123, "a":[1.0,  1e2], "b": {"c": "\u00e4", "d": 1}, "a":0} "#;
        assert_eq!(
            merged(text, &json!({"b": {"d": 2, "e": null}, "n": {"m": null}})),
            r#"{"z":12345678901234567890123,"a":[1.0,  1e2],"b":{"c":"\u00e4","d":2},"a":0,"n":{}}"#
        );
    }

    #[test]
    fn what_is_no_json_is_an_error() {
        for text in ["", "{", "{\"a\":1}x", "{\"a\":[1}", "{a:1}"] {
            assert!(merge(text.as_bytes(), &json!({"b": 1})).is_err(), "{text}");
        }
        assert!(merge(b"{\"a\":\"\xff\"}", &json!({})).is_err());
    }
}
