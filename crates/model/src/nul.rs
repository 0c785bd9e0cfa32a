//! NUL bytes in a document. The kernel ends each path, argument and variable at the first one, so a
//! text that holds one can be handed to no program: whoever reads a spec refuses it by its place.

use serde_json::Value;

/// Annotations are for readers of the document alone: the kernel sees none of them.
const OPAQUE: &str = "annotations";

/// The place of the first text with a NUL byte in a document, such as `process.args[1]`;
/// annotations aside.
#[must_use]
pub fn place_of_nul(document: &Value) -> Option<String> {
    let mut place = String::new();
    is_in(document, &mut place).then_some(place)
}

/// As [`place_of_nul`], in JSON text, which is parsed only if it may hold one.
///
/// # Errors
/// When it is no JSON.
pub fn place_of_nul_in(json: &[u8]) -> serde_json::Result<Option<String>> {
    // JSON has no other spelling of it.
    let mut after_backslash = json.split(|byte| *byte == b'\\').skip(1);
    if !after_backslash.any(|text| text.starts_with(b"u0000")) {
        return Ok(None);
    }
    serde_json::from_slice(json).map(|document| place_of_nul(&document))
}

/// Leaves `place` at the text that was found. JSON's reader bounds the depth.
fn is_in(value: &Value, place: &mut String) -> bool {
    let length = place.len();
    match value {
        Value::String(text) if text.contains('\0') => return true,
        Value::Array(items) => {
            for (number, item) in items.iter().enumerate() {
                place.push_str(&format!("[{number}]"));
                if is_in(item, place) {
                    return true;
                }
                place.truncate(length);
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields.iter().filter(|(name, _)| *name != OPAQUE) {
                let dot = if length == 0 { "" } else { "." };
                place.push_str(&format!("{dot}{}", name.escape_default()));
                if name.contains('\0') || is_in(value, place) {
                    return true;
                }
                place.truncate(length);
            }
        }
        _ => {}
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_told() {
        for (json, place) in [
            (
                r#"{"process": {"args": ["sh", "a\u0000b"]}}"#,
                Some("process.args[1]"),
            ),
            (
                r#"{"mounts": [{}, {"source": "\u0000"}]}"#,
                Some("mounts[1].source"),
            ),
            (
                r#"{"linux": {"sysctl": {"a\u0000": "1"}}}"#,
                Some(r"linux.sysctl.a\u{0}"),
            ),
            (r#""\u0000""#, Some("")),
            (
                r#"{"annotations": {"a": "\u0000"}, "root": {"path": "r"}}"#,
                None,
            ),
            (r#"{"process": {"args": ["\\u0000", "u0000", "\n"]}}"#, None),
        ] {
            let found = place_of_nul_in(json.as_bytes()).unwrap();
            assert_eq!(found.as_deref(), place, "{json}");
            let document: Value = serde_json::from_str(json).unwrap();
            assert_eq!(place_of_nul(&document).as_deref(), place, "{json}");
        }
        assert!(place_of_nul_in(br#"{"\u0000"#).is_err());
    }
}
