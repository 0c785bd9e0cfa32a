//! The default configuration as a commented file: the defaults of [`Written`], each under its words.

use toml::{Table, Value};

use super::words::{flag, words};
use super::written::Written;

const HEAD: &str = "\
Configuration of crispd. Every key is optional, and what stands here is the default.
crispd reads /etc/crisp/config.toml (or the file of --config), then conf.d/*.toml beside it in the
order of their names; a later file wins, and flags win over files.
`crispd config check` names file, line and key of what is wrong.";

/// The whole default file.
#[must_use]
pub fn document() -> String {
    let mut text = comment(HEAD, 98);
    // A struct of strings, numbers and tables always is a table.
    if let Ok(Value::Table(table)) = Value::try_from(Written::default()) {
        print(&mut text, "", &table);
    }
    text
}

/// The comment above a key or table.
fn story(path: &str) -> String {
    let words = words(path).unwrap_or_default();
    match flag(path) {
        Some(flag) => comment(&format!("{words} Flag {flag}."), 98),
        None => comment(words, 98),
    }
}

fn print(text: &mut String, path: &str, table: &Table) {
    let full = |key: &str| {
        if path.is_empty() {
            key.to_owned()
        } else {
            format!("{path}.{key}")
        }
    };
    let (tables, values): (Vec<_>, Vec<_>) = table.iter().partition(|(_, v)| v.is_table());
    for (key, value) in values {
        text.push('\n');
        text.push_str(&story(&full(key)));
        text.push_str(&format!("{key} = {value}\n"));
    }
    for (key, value) in tables {
        let path = full(key);
        let Some(table) = value.as_table() else {
            continue;
        };
        if words(&path).is_some() {
            text.push('\n');
            text.push_str(&story(&path));
        }
        if table.values().any(|value| !value.is_table()) {
            text.push_str(&format!("[{path}]\n"));
        }
        print(text, &path, table);
    }
}

/// Wraps a paragraph into comment lines; its own line breaks stay.
fn comment(paragraph: &str, width: usize) -> String {
    let mut text = String::new();
    for line in paragraph.lines() {
        let mut column = 0;
        for word in line.split_whitespace() {
            if column == 0 || column + 1 + word.chars().count() > width {
                text.push_str(if column == 0 { "#" } else { "\n#" });
                column = 1;
            }
            text.push(' ');
            text.push_str(word);
            column += 1 + word.chars().count();
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::words::FLAGS;
    use super::*;

    fn keys(path: &str, table: &Table, found: &mut Vec<String>) {
        for (key, value) in table {
            let full = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            match value {
                Value::Table(table) => keys(&full, table, found),
                _ => found.push(full),
            }
        }
    }

    #[test]
    fn the_printed_default_is_the_default() {
        let text = document();
        let parsed: Written = toml::from_str(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert_eq!(parsed, Written::default());
    }

    #[test]
    fn every_key_and_table_has_words() {
        let Value::Table(table) = Value::try_from(Written::default()).unwrap() else {
            panic!()
        };
        let mut found = Vec::new();
        keys("", &table, &mut found);
        for key in &found {
            let words = words(key).unwrap_or_default();
            assert!(words.ends_with('.'), "{key}: {words:?}");
        }
        for (key, _) in FLAGS {
            assert!(found.iter().any(|k| k == key), "{key} is no key");
        }
        assert!(document().lines().all(|line| line.len() <= 110));
    }
}
