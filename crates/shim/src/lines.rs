//! Cutting a stream into log lines without copying it.

use std::io::BufRead;

/// The longest text of one log line; longer ones go on in further lines, as CRI's readers expect.
pub(crate) const MAX_TEXT: usize = 16 * 1024;

/// A line of the log to be: bytes that were held back from earlier reads, and those that follow.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece<'a> {
    /// Held back; empty but for the first piece.
    pub head: &'a [u8],
    /// The rest; ends with a newline when the piece is whole.
    pub text: &'a [u8],
    /// Whether the line ends here or goes on in the next piece.
    pub whole: bool,
}

/// The bytes after the last whole piece, to be held back until more come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rest<'a> {
    /// Whether `held` still belongs to it.
    pub keeps_held: bool,
    /// The end of the chunk.
    pub text: &'a [u8],
}

/// Cuts `held` and the `chunk` that follows it into pieces.
pub(crate) fn cut<'a, 'chunk: 'a>(
    held: &'a [u8],
    chunk: &'chunk [u8],
    mut each: impl FnMut(Piece<'a>),
) -> Rest<'chunk> {
    let (mut head, mut rest) = (held, chunk);
    let mut keeps_held = true;
    loop {
        let room = MAX_TEXT.saturating_sub(head.len());
        // A newline right after a text of full length still ends it.
        let window = &rest[..rest.len().min(room + 1)];
        let (taken, whole) = match newline(window) {
            Some(at) => (at + 1, true),
            None if rest.len() > room => (room, false),
            None => {
                return Rest {
                    keeps_held,
                    text: rest,
                };
            }
        };
        let (text, after) = rest.split_at(taken);
        each(Piece { head, text, whole });
        (head, rest, keeps_held) = (&[], after, false);
    }
}

/// Where the first newline is. The standard library's own search reads words, not bytes.
fn newline(bytes: &[u8]) -> Option<usize> {
    let mut reader = bytes;
    let read = reader.skip_until(b'\n').ok()?;
    let last = read.checked_sub(1)?;
    (bytes[last] == b'\n').then_some(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pieces(held: &[u8], chunk: &[u8]) -> (Vec<(Vec<u8>, bool)>, Vec<u8>) {
        let mut all = Vec::new();
        let rest = cut(held, chunk, |piece| {
            all.push(([piece.head, piece.text].concat(), piece.whole));
        });
        let kept = if rest.keeps_held { held } else { &[] };
        (all, [kept, rest.text].concat())
    }

    #[test]
    fn lines_end_at_newlines_and_at_their_longest() {
        let long = vec![b'x'; MAX_TEXT];
        let line = [&long[..], b"\n"].concat();
        assert_eq!(
            pieces(b"", b"a\n\nb"),
            (
                vec![(b"a\n".to_vec(), true), (b"\n".to_vec(), true)],
                b"b".to_vec()
            )
        );
        assert_eq!(
            pieces(b"he", b"llo\n"),
            (vec![(b"hello\n".to_vec(), true)], vec![])
        );
        assert_eq!(pieces(b"", &line), (vec![(line.clone(), true)], vec![]));
        assert_eq!(pieces(&long, b"\n"), (vec![(line.clone(), true)], vec![]));
        assert_eq!(
            pieces(&long, b"y"),
            (vec![(long.clone(), false)], b"y".to_vec())
        );
        assert_eq!(pieces(&long, b""), (vec![], long.clone()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn nothing_is_lost_however_it_arrives(
            lengths in proptest::collection::vec(0_usize..40_000, 0..4),
            size in 100_usize..20_000,
        ) {
            let lines: Vec<String> = lengths.into_iter().map(|length| ".".repeat(length)).collect();
            let text = lines.join("\n").into_bytes();
            let (mut held, mut log) = (Vec::new(), Vec::new());
            for chunk in text.chunks(size) {
                let (all, rest) = pieces(&held, chunk);
                for (piece, whole) in all {
                    prop_assert!(piece.len() <= MAX_TEXT + usize::from(whole));
                    prop_assert_eq!(whole, piece.ends_with(b"\n"));
                    log.extend(piece);
                }
                prop_assert!(rest.len() <= MAX_TEXT);
                held = rest;
            }
            log.extend(&held);
            prop_assert_eq!(log, text);
        }
    }
}
