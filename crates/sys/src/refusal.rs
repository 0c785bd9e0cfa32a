//! A *refusal* is an error of the kernel that is told on in words which name step and object. It
//! keeps the kernel's number, by which callers tell a value that cannot be from one that is in the
//! way of something now.

use std::error::Error;
use std::fmt;
use std::io;

#[derive(Debug)]
struct Refusal {
    text: String,
    source: io::Error,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Refusal {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

/// An error of this kind in these words, which tell of its source as well.
#[must_use]
pub(crate) fn told(kind: io::ErrorKind, text: String, source: io::Error) -> io::Error {
    io::Error::new(kind, Refusal { text, source })
}

/// The kernel's number of an error (errno(3)), in whatever words it is told.
#[must_use]
pub fn number(error: &io::Error) -> Option<i32> {
    let wrapped = || {
        let refusal = error.get_ref()?.downcast_ref::<Refusal>()?;
        number(&refusal.source)
    };
    error.raw_os_error().or_else(wrapped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_hide_no_number() {
        let busy = || io::Error::from_raw_os_error(libc::EBUSY);
        assert_eq!(number(&busy()), Some(libc::EBUSY));
        let told = |source: io::Error| told(source.kind(), "write it".to_owned(), source);
        let twice = told(told(busy()));
        assert_eq!(number(&twice), Some(libc::EBUSY));
        assert_eq!(twice.kind(), io::ErrorKind::ResourceBusy);
        assert_eq!(twice.to_string(), "write it");
        assert_eq!(number(&io::Error::other("of ours")), None);
    }
}
