//! The parts of a value's text, which is known to be JSON: where each item of a list or object ends.

/// The items of a list or an object; of an object, with their keys.
pub(super) struct Items<'d>(&'d str);

impl<'d> Items<'d> {
    /// The parts of a list or object, whose text begins and ends with its brackets.
    pub(super) fn of(text: &'d str) -> Self {
        let inner = text.get(1..text.len().saturating_sub(1));
        Self(inner.unwrap_or_default().trim_ascii())
    }
}

impl<'d> Iterator for Items<'d> {
    type Item = &'d str;

    fn next(&mut self) -> Option<&'d str> {
        if self.0.is_empty() {
            return None;
        }
        let end = end_of_item(self.0);
        let item = self.0[..end].trim_ascii();
        self.0 = self.0[end..].strip_prefix(',').unwrap_or_default();
        self.0 = self.0.trim_ascii_start();
        Some(item)
    }
}

/// Where the first item ends: at a comma that is in no string and no inner value.
fn end_of_item(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = end_of_string(bytes, at),
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => break,
            _ => {}
        }
        at += 1;
    }
    at.min(bytes.len())
}

/// Where the string ends that begins at `at`: at its second quote.
fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    at += 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    at
}

/// The key of an object's item, with its quotes, and the value.
pub(super) fn key_of(item: &str) -> (&str, &str) {
    let end = (end_of_string(item.as_bytes(), 0) + 1).min(item.len());
    let (key, rest) = item.split_at(end);
    let value = rest.trim_ascii_start().strip_prefix(':');
    (key, value.unwrap_or_default().trim_ascii_start())
}

/// The byte that tells what a value is.
pub(super) fn first_byte(value: &str) -> u8 {
    value.as_bytes().first().copied().unwrap_or_default()
}
