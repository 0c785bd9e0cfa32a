//! `WWW-Authenticate`: what a registry wants to see (RFC 9110, section 11.6.1).

use std::collections::BTreeMap;

/// One way to authenticate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// User and password in each request.
    Basic,
    /// A token from the token server at `realm`.
    Bearer {
        /// URL of the token server.
        realm: String,
        /// The service that the token is for, as the token server names it.
        service: Option<String>,
        /// Rights that the request needs.
        scope: Option<String>,
        /// Why the token that was sent did not do.
        error: Option<String>,
    },
}

/// The strongest challenge in the header values; `None` when there is none that we know.
pub(crate) fn parse<'a>(values: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut basic = None;
    for value in values {
        for (scheme, mut parameters) in split(value) {
            match scheme.to_ascii_lowercase().as_str() {
                "bearer" => {
                    if let Some(realm) = parameters.remove("realm") {
                        return Some(Challenge::Bearer {
                            realm,
                            service: parameters.remove("service"),
                            scope: parameters.remove("scope"),
                            error: parameters.remove("error"),
                        });
                    }
                }
                "basic" => basic = Some(Challenge::Basic),
                _ => {}
            }
        }
    }
    basic
}

/// Splits a header value into schemes with their parameters.
fn split(value: &str) -> Vec<(String, BTreeMap<String, String>)> {
    let mut found: Vec<(String, BTreeMap<String, String>)> = Vec::new();
    let mut rest = value.trim_start();
    while !rest.is_empty() {
        let (word, after) = token(rest);
        if word.is_empty() {
            // Not a token where one must stand: skip a character and go on.
            let mut chars = rest.chars();
            chars.next();
            rest = chars.as_str().trim_start();
            continue;
        }
        let after = after.trim_start();
        match (after.strip_prefix('='), found.last_mut()) {
            (Some(text), Some((_, parameters))) => {
                let (content, after) = parameter(text.trim_start());
                parameters
                    .entry(word.to_ascii_lowercase())
                    .or_insert(content);
                rest = after;
            }
            _ => {
                found.push((word.to_owned(), BTreeMap::new()));
                rest = after;
            }
        }
        rest = rest.trim_start().trim_start_matches(',').trim_start();
    }
    found
}

fn token(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)))
        .unwrap_or(text.len());
    text.split_at(end)
}

/// A parameter's value, quoted or bare, and what follows it.
fn parameter(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut content = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (content, &quoted[at + 1..]),
            '\\' => content.extend(chars.next().map(|(_, c)| c)),
            c => content.push(c),
        }
    }
    (content, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
            error: None,
        })
    }

    #[test]
    fn challenges_parse() {
        let cases: [(&[&str], Option<Challenge>); 10] = [
            (
                &[r#"Bearer realm="https://a/t",service="s",scope="repository:a/b:pull,push""#],
                bearer("https://a/t", Some("s"), Some("repository:a/b:pull,push")),
            ),
            (
                &[r#"bearer  realm = "https://a/t" , service=s"#],
                bearer("https://a/t", Some("s"), None),
            ),
            (&[r#"Basic realm="x""#], Some(Challenge::Basic)),
            (&["Basic"], Some(Challenge::Basic)),
            (
                &[r#"Basic realm="x", Bearer realm="https://a""#],
                bearer("https://a", None, None),
            ),
            (&["Negotiate", "Basic"], Some(Challenge::Basic)),
            (&[r#"Bearer service="s""#], None),
            (&[r#"Bearer realm="a\"b"#], bearer("a\"b", None, None)),
            (&["\"\"=,,;;", ""], None),
            (&["Digest realm=\"é\", Basic"], Some(Challenge::Basic)),
        ];
        for (values, expected) in cases {
            assert_eq!(parse(values.iter().copied()), expected, "{values:?}");
        }
    }
}
