//! Comments name their subject first: a sentence that opens with `What`, `Those` or `One that` has to
//! be read to its end before a reader knows what it is about.

use crate::check;

/// Openings that hide the subject.
const HIDING: [&str; 8] = [
    "What", "Who", "Whoever", "Whatever", "Those", "Nobody", "Somebody", "One that",
];

fn hides(sentence: &str) -> bool {
    HIDING.iter().any(|opening| {
        let rest = sentence.strip_prefix(opening);
        rest.is_some_and(|rest| rest.starts_with(' ') || rest.is_empty())
    })
}

/// The text of a line that is a comment and nothing else.
fn comment(line: &str) -> Option<&str> {
    let text = line.trim_start().strip_prefix("//")?;
    Some(text.trim_start_matches(['/', '!']).trim())
}

/// The first line of each sentence that hides its subject.
fn hidden(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut begins = true;
    for (number, line) in text.lines().enumerate() {
        let Some(words) = comment(line) else {
            begins = true;
            continue;
        };
        let later = words.split(". ").skip(1);
        let first = begins.then_some(words);
        if first.into_iter().chain(later).any(hides) {
            found.push(format!("line {}: {words}", number + 1));
        }
        begins = words.is_empty() || words.ends_with(['.', ':']);
    }
    found
}

#[test]
fn comments_name_their_subject_first() {
    check(
        "a comment names its subject first, then says why",
        |_, text| {
            let found = hidden(text);
            (!found.is_empty()).then(|| found.join("\n    "))
        },
    );
}

#[test]
fn hidden_subjects_are_found_wherever_a_sentence_begins() {
    let opening = HIDING[0];
    let cases = [
        (format!("/// {opening} it does."), 1),
        (format!("//! A file. {opening} it does."), 1),
        (format!("// It ends.\n// {opening} it does."), 1),
        (format!("// It says\n// {opening} in the middle."), 0),
        (format!("let text = \"// {opening} it does\";"), 0),
        ("// It tells what it does.".to_owned(), 0),
        (format!("// {opening}soever is a word."), 0),
    ];
    for (text, count) in cases {
        assert_eq!(hidden(&text).len(), count, "{text}");
    }
}
