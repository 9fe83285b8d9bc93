//! Patterns over absolute paths: `*`, `?` and `[a-z]` within a component, `**` for whole ones.

/// A pattern, taken apart.
#[derive(Clone, Debug, PartialEq)]
pub struct Glob(Option<Vec<Token>>);

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Just(char),
    /// One character but `/`.
    One,
    /// Any characters but `/`, or none.
    Some,
    /// Whole components, or none.
    Components,
    /// One character of these ranges, or of none of them; never `/`.
    Range {
        ranges: Vec<(char, char)>,
        negated: bool,
    },
}

impl Glob {
    /// Takes a pattern apart; the empty one matches everything.
    pub fn new(pattern: &str) -> Result<Self, &'static str> {
        if pattern.is_empty() {
            return Ok(Self(None));
        }
        let all: Vec<char> = pattern.chars().collect();
        let (mut tokens, mut rest) = (Vec::new(), &all[..]);
        while let Some((&first, after)) = rest.split_first() {
            let begins = rest.len() == all.len() || all[all.len() - rest.len() - 1] == '/';
            (tokens, rest) = match first {
                '*' => stars(tokens, rest, begins)?,
                '[' => range(tokens, after)?,
                _ => {
                    tokens.push(if first == '?' {
                        Token::One
                    } else {
                        Token::Just(first)
                    });
                    (tokens, after)
                }
            };
        }
        Ok(Self(Some(tokens)))
    }

    /// Does it match this whole path? What is no UTF-8 counts as one character each.
    pub fn matches(&self, path: &[u8]) -> bool {
        let Some(tokens) = &self.0 else { return true };
        let text: Vec<char> = String::from_utf8_lossy(path).chars().collect();
        fits(tokens, &text)
    }
}

type Parsed<'a> = Result<(Vec<Token>, &'a [char]), &'static str>;

fn stars(mut tokens: Vec<Token>, rest: &[char], begins: bool) -> Parsed<'_> {
    let count = rest.iter().take_while(|&&one| one == '*').count();
    let after = &rest[count..];
    match count {
        1 => tokens.push(Token::Some),
        2 if begins && matches!(after.first(), None | Some('/')) => tokens.push(Token::Components),
        2 => return Err("`**` must be a whole component, as in `/data/**/*`"),
        _ => return Err("more than two `*` stand beside each other"),
    }
    let slash = usize::from(count == 2 && !after.is_empty()); // belongs to the components
    Ok((tokens, &after[slash..]))
}

fn range(mut tokens: Vec<Token>, after: &[char]) -> Parsed<'_> {
    let negated = after.first() == Some(&'!');
    let inside = &after[usize::from(negated)..];
    // A bracket that comes first is one of the characters.
    let end = inside
        .iter()
        .skip(1)
        .position(|&one| one == ']')
        .ok_or("a `[` has no `]`")?
        + 1;
    let (mut chars, mut ranges) = (&inside[..end], Vec::new());
    while let Some(&low) = chars.first() {
        let wide = chars.len() > 2 && chars[1] == '-';
        ranges.push((low, if wide { chars[2] } else { low }));
        chars = &chars[if wide { 3 } else { 1 }..];
    }
    tokens.push(Token::Range { ranges, negated });
    Ok((tokens, &inside[end + 1..]))
}

fn fits(tokens: &[Token], text: &[char]) -> bool {
    let Some((token, tokens)) = tokens.split_first() else {
        return text.is_empty();
    };
    let first = text.first().copied();
    let one = |good: bool| good && fits(tokens, &text[1..]);
    match token {
        Token::Just(wanted) => one(first == Some(*wanted)),
        Token::One => one(first.is_some_and(|found| found != '/')),
        Token::Range { ranges, negated } => one(first.is_some_and(|found| {
            let within = ranges
                .iter()
                .any(|&(low, high)| low <= found && found <= high);
            found != '/' && within != *negated
        })),
        Token::Some => {
            let reach = text.iter().take_while(|&&found| found != '/').count();
            (0..=reach).any(|skipped| fits(tokens, &text[skipped..]))
        }
        Token::Components if tokens.is_empty() => true,
        Token::Components => {
            let starts = text.iter().enumerate().filter(|(_, &found)| found == '/');
            let mut starts = std::iter::once(0).chain(starts.map(|(at, _)| at + 1));
            starts.any(|start| fits(tokens, &text[start..]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Glob;

    fn matches(pattern: &str, path: &str) -> bool {
        Glob::new(pattern).unwrap().matches(path.as_bytes())
    }

    #[test]
    fn table() {
        for (pattern, path, wanted) in [
            ("", "/data/a", true),
            ("/data/a", "/data/a", true),
            ("/data/a", "/data/ab", false),
            ("/data/*", "/data/a", true),
            ("/data/*", "/data/", true),
            ("/data/*", "/data/a/b", false),
            ("/data/**", "/data/a/b", true),
            ("/data/**", "/data", false),
            ("/data/**/*", "/data/a", true),
            ("/data/**/*", "/data/a/b/c", true),
            ("/data/**/*.db", "/data/a/b.db", true),
            ("/data/**/*.db", "/data/b.db", true),
            ("/data/**/*.db", "/data/b.dbx", false),
            ("**/wal/*", "/data/wal/1", true),
            ("/data/?", "/data/é", true),
            ("/data/?", "/data/", false),
            ("/da?a", "/da/a", false),
            ("/[a-c]", "/b", true),
            ("/[!a-c]", "/b", false),
            ("/[!a-c]", "/d", true),
            ("/[]]", "/]", true),
            ("/[!]]", "/]", false),
            ("/[a-]", "/-", true),
            ("/x[!a]y", "/x/y", false),
            ("/[c-a]", "/b", false),
            ("/a*b*c", "/axxbyyc", true),
            ("/a*b*c", "/axxbyy", false),
        ] {
            assert_eq!(matches(pattern, path), wanted, "{pattern} on {path}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_told_why() {
        for (wrong, why) in [
            (
                "/data/**x",
                "`**` must be a whole component, as in `/data/**/*`",
            ),
            (
                "/data/x**",
                "`**` must be a whole component, as in `/data/**/*`",
            ),
            ("/data/***", "more than two `*` stand beside each other"),
            ("/data/[a", "a `[` has no `]`"),
            ("/data/[]", "a `[` has no `]`"),
        ] {
            assert_eq!(Glob::new(wrong), Err(why), "{wrong}");
        }
    }
}
