//! Names with wildcards: `?` is one character, `*` any number of them, dots included.

/// One pattern, in lower case and without a dot at its end.
#[derive(Debug)]
pub struct Pattern(Vec<u8>);

impl Pattern {
    pub fn new(text: &str) -> Self {
        Self(text.trim_end_matches('.').to_ascii_lowercase().into_bytes())
    }

    /// Does a whole name fit? It takes at most as many steps as their lengths multiplied.
    pub fn fits(&self, name: &[u8]) -> bool {
        let (mut at, mut seen) = (0, 0);
        // Where to go on if the last `*` takes one character more.
        let mut again = None;
        while seen < name.len() {
            match self.0.get(at) {
                Some(b'*') => {
                    again = Some((at + 1, seen));
                    at += 1;
                }
                Some(&wanted) if wanted == b'?' || wanted == name[seen] => {
                    at += 1;
                    seen += 1;
                }
                _ => match again {
                    Some((after, from)) => {
                        again = Some((after, from + 1));
                        (at, seen) = (after, from + 1);
                    }
                    None => return false,
                },
            }
        }
        self.0[at..].iter().all(|&rest| rest == b'*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(pattern: &str, name: &str) -> bool {
        Pattern::new(pattern).fits(name.as_bytes())
    }

    #[test]
    fn whole_names_fit() {
        for (pattern, name, expected) in [
            ("example.org", "example.org", true),
            ("Example.ORG.", "example.org", true),
            ("example.org", "www.example.org", false),
            ("example.org", "example.org.uk", false),
            ("chaos-mes?.org", "chaos-mesh.org", true),
            ("chaos-mes?.org", "chaos-mes.org", false),
            ("github.*", "github.com", true),
            ("github.*", "github.co.uk", true),
            ("github.*", "gitlab.com", false),
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", "example.com", false),
            ("*", "", true),
            ("*", "anything.at.all", true),
            ("?", "", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("*.*.svc.*", "web.shop.svc.cluster.local", true),
            ("a*a", "a", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn many_wildcards_take_no_time() {
        let pattern = "*a".repeat(120);
        assert!(!fits(&pattern, &"ab".repeat(126)));
    }
}
