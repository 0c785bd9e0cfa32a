//! Texts that come from elsewhere, such as a plugin's or a registry's words.

/// A text that is not ours, cut in its middle when it is long. A character that is sent in percent
/// coding counts as much as it takes then.
#[must_use]
pub fn bounded(text: &str, most: usize) -> String {
    let cost = |c: char| match c {
        ' '..='~' if c != '%' => 1,
        c => 3 * c.len_utf8(),
    };
    if text.chars().map(cost).sum::<usize>() <= most {
        return text.to_owned();
    }
    let half = |characters: &mut dyn Iterator<Item = char>| -> Vec<char> {
        let mut left = most / 2;
        let fits = |c: &char| match left.checked_sub(cost(*c)) {
            Some(rest) => {
                left = rest;
                true
            }
            None => false,
        };
        characters.take_while(fits).collect()
    };
    let head = half(&mut text.chars());
    let tail = half(&mut text.chars().rev());
    let tail = tail.into_iter().rev();
    head.into_iter()
        .chain(" [...] ".chars())
        .chain(tail)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_keeps_its_ends_and_its_bound() {
        assert_eq!(bounded("short", 10), "short");
        let long = format!("first {} last", "x".repeat(20_000));
        let cut = bounded(&long, 100);
        assert!(cut.len() < 110 && cut.starts_with("first ") && cut.ends_with(" last"));
        assert!(bounded(&"é".repeat(1000), 120).chars().count() < 30);
    }
}
