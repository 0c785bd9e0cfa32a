//! The words of a host in the answer with which it refuses: made short and safe to print.

use crisp_model::go_json;
use http::StatusCode;
use serde::Deserialize;

/// Characters of it that are told.
const LONGEST: usize = 300;

/// Documents in which registries, token servers and gateways explain themselves.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Answer {
    errors: Vec<Entry>,
    message: String,
    error: String,
    error_description: String,
    details: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    code: String,
    message: String,
}

/// A status with the words behind it.
pub(crate) fn reason(status: StatusCode, body: &[u8]) -> String {
    let words = match go_json::from_slice::<Answer>(body) {
        Ok(answer) => answer.words(),
        Err(_) => plain(&String::from_utf8_lossy(body)),
    };
    let mut text = status.to_string();
    if !words.is_empty() {
        text.push_str(": ");
        text.push_str(&words);
    }
    if text.chars().count() > LONGEST {
        text = text.chars().take(LONGEST).collect();
        text.push('…');
    }
    text
}

impl Answer {
    fn words(&self) -> String {
        let entries = self.errors.iter();
        let entries = entries.map(|entry| join(&[&entry.code, &entry.message]));
        let own = [
            &self.error,
            &self.error_description,
            &self.message,
            &self.details,
        ];
        let own = own.map(String::as_str);
        let all: Vec<String> = entries.chain([join(&own)]).collect();
        let all = all.iter().filter(|words| !words.is_empty());
        all.cloned().collect::<Vec<_>>().join(", ")
    }
}

fn join(parts: &[&str]) -> String {
    let parts = parts.iter().map(|part| printable(part));
    let parts: Vec<String> = parts.filter(|part| !part.is_empty()).collect();
    parts.join(": ")
}

/// The title of a page, or else its text.
fn plain(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let title = lower.find("<title>").map(|at| at + "<title>".len());
    let title = title.and_then(|start| {
        let end = start + lower[start..].find("</title>")?;
        text.get(start..end)
    });
    if let Some(title) = title {
        return printable(title);
    }
    let mut bare = String::new();
    let mut in_tag = false;
    for letter in text.chars() {
        match letter {
            '<' => in_tag = true,
            '>' if in_tag => {
                in_tag = false;
                bare.push(' ');
            }
            letter if !in_tag => bare.push(letter),
            _ => {}
        }
    }
    printable(&bare)
}

/// Without control characters, and with single spaces.
fn printable(text: &str) -> String {
    let words = text.split_whitespace();
    let words = words.map(|word| word.chars().filter(|c| !c.is_control()).collect());
    words.collect::<Vec<String>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_in_the_words_of_its_sender() {
        for (body, expected) in [
            (
                r#"{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known"}]}"#,
                "403 Forbidden: NAME_UNKNOWN: repository name not known",
            ),
            (
                r#"{"errors":[{"code":"A"},{"message":"b","detail":{"x":[1]}},{}]}"#,
                "403 Forbidden: A, b",
            ),
            (
                r#"{"Errors":[{"Code":"A","Message":null}]}"#,
                "403 Forbidden: A",
            ),
            (
                r#"{"error":"invalid_scope","error_description":"not yours"}"#,
                "403 Forbidden: invalid_scope: not yours",
            ),
            (r#"{"message":"quota"}"#, "403 Forbidden: quota"),
            (r#"{"details":"incorrect"}"#, "403 Forbidden: incorrect"),
            ("{}", "403 Forbidden"),
            ("", "403 Forbidden"),
            ("no\r\n\u{1b}[31mentry\n", "403 Forbidden: no [31mentry"),
            (
                "<html><head><TITLE>\n Blocked by policy </TITLE></head><body>x</body></html>",
                "403 Forbidden: Blocked by policy",
            ),
            (
                "<html><body><h1>Denied</h1><p>ask IT</p></body></html>",
                "403 Forbidden: Denied ask IT",
            ),
            (
                r#"<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>"#,
                "403 Forbidden: AccessDenied",
            ),
        ] {
            let found = reason(StatusCode::FORBIDDEN, body.as_bytes());
            assert_eq!(found, expected, "{body}");
        }
        let long = reason(StatusCode::FORBIDDEN, "é".repeat(5000).as_bytes());
        assert_eq!(long.chars().count(), LONGEST + 1);
    }
}
