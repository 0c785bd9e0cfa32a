//! Fields are the keys and values of an event or span, kept apart so that a line can leave out a
//! key that it has already, and write each value by one rule, however it was recorded.

use std::fmt;

use serde_json::Value;
use tracing::field::{Field, Visit};

/// The field that `tracing` puts the words of an event in.
const MESSAGE: &str = "message";

/// Fields for the trace exporter alone begin so.
const FOR_TRACES: &str = "otel.";

/// Keys and values in the order in which they were recorded.
#[derive(Debug, Default)]
pub(crate) struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    /// Sets a field; a span's field may be recorded again.
    fn set(&mut self, field: &Field, value: Value) {
        let name = field.name();
        if name.starts_with(FOR_TRACES) {
            return;
        }
        let name = name.strip_prefix("r#").unwrap_or(name);
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name, value)),
        }
    }

    /// Adds the fields of a span around: a key that is there already is the inner one's.
    pub(crate) fn inherit(&mut self, outer: &Self) {
        for (name, value) in &outer.0 {
            if self.0.iter().all(|(known, _)| known != name) {
                self.0.push((name, value.clone()));
            }
        }
    }

    /// Takes the words of the event out of its fields.
    pub(crate) fn take_message(&mut self) -> String {
        let at = self.0.iter().position(|(name, _)| *name == MESSAGE);
        match at.map(|at| self.0.remove(at).1) {
            Some(Value::String(text)) => text,
            Some(other) => other.to_string(),
            None => String::new(),
        }
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        self.0.iter().map(|(name, value)| (*name, value))
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.into());
    }

    /// Comes here from `?value`, `%value` and the message. `?` puts a text in quotes: taken off,
    /// the text is the same as with `%`.
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        let text = match field.name() {
            MESSAGE => text,
            _ => unquoted(&text).unwrap_or(text),
        };
        self.set(field, text.into());
    }
}

/// Writes a value into a line of text: bare when it is one plain word, else in quotes with escapes.
pub(crate) fn write_value(line: &mut String, value: &Value) {
    let text = match value {
        Value::String(text) => text,
        other => return line.push_str(&other.to_string()),
    };
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '\'' | '=');
    if text.is_empty() || text.contains(odd) {
        line.push_str(&format!("{text:?}"));
    } else {
        line.push_str(text);
    }
}

/// The text of which `quoted` is the Debug form; none when it is no such form.
fn unquoted(quoted: &str) -> Option<String> {
    let inside = quoted.strip_prefix('"')?.strip_suffix('"')?;
    let mut text = String::with_capacity(inside.len());
    let mut rest = inside.chars();
    while let Some(c) = rest.next() {
        match c {
            '"' => return None,
            '\\' => text.push(escaped(&mut rest)?),
            c => text.push(c),
        }
    }
    Some(text)
}

/// The character that an escape of Debug stands for, behind its backslash.
fn escaped(rest: &mut std::str::Chars<'_>) -> Option<char> {
    Some(match rest.next()? {
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        '0' => '\0',
        'u' => {
            let (code, after) = rest.as_str().strip_prefix('{')?.split_once('}')?;
            *rest = after.chars();
            char::from_u32(u32::from_str_radix(code, 16).ok()?)?
        }
        c @ ('"' | '\'' | '\\') => c,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_quoted_when_it_is_not_one_plain_word() {
        for (value, written) in [
            ("main", "main"),
            ("e2e/golden", "e2e/golden"),
            ("registry.test/busybox:1", "registry.test/busybox:1"),
            ("", "\"\""),
            ("two words", "\"two words\""),
            ("a=b", "\"a=b\""),
            ("say \"x\"", "\"say \\\"x\\\"\""),
            ("two\nlines", "\"two\\nlines\""),
            ("\u{1b}[31m", "\"\\u{1b}[31m\""),
        ] {
            let mut line = String::new();
            write_value(&mut line, &value.into());
            assert_eq!(line, written);
        }
    }

    #[test]
    fn the_debug_form_of_a_text_is_read_back() {
        for text in ["", "main", "a \"b\" \\ \n\t\0 \u{1b} ü ' {}", "\u{200b}"] {
            assert_eq!(unquoted(&format!("{text:?}")).as_deref(), Some(text));
        }
        for other in ["main", "\"a\", \"b\"", "\"", "Some(\"a\")", "\"\\q\""] {
            assert_eq!(unquoted(other), None, "{other}");
        }
    }
}
