//! Base64 (RFC 4648, section 4), as JSON carries bytes.

/// Decodes; padding may be missing, anything foreign is an error.
pub fn decode(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0u32, 0);
    for character in text.trim_end_matches('=').bytes() {
        let value = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            other => return Err(format!("no base64: it has {:?}", char::from(other))),
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    match held {
        6 => Err("no base64: it is cut short".to_owned()),
        _ => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn texts_of_the_standard_decode() {
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYmFy", "foobar"),
        ] {
            assert_eq!(decode(text).unwrap(), bytes.as_bytes());
        }
        assert_eq!(decode("//79").unwrap(), [255, 254, 253]);
    }

    #[test]
    fn what_is_no_base64_is_told() {
        assert!(decode("Zm 9").is_err());
        assert!(decode("Z").is_err());
    }
}
