//! Records of a PAX extended header (pax(1)): `LENGTH KEY=VALUE\n`, values of any bytes.

use crate::error::{Error, Result};
use crate::header::decimal;
use crate::sparse::Fragment;

const XATTR: &[u8] = b"SCHILY.xattr.";

/// A moment, as seconds and nanoseconds since the epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

/// The words of extended headers about the entry that follows.
#[derive(Debug, Default)]
pub(crate) struct Extended {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) uid: Option<u64>,
    pub(crate) gid: Option<u64>,
    pub(crate) mtime: Option<Moment>,
    pub(crate) atime: Option<Moment>,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) sparse: SparseWords,
}

/// GNU tar's words about a sparse file, in its formats 0.0, 0.1 and 1.0.
#[derive(Debug, Default)]
pub(crate) struct SparseWords {
    /// 1 when the map stands before the data.
    pub(crate) major: u64,
    pub(crate) minor: u64,
    pub(crate) name: Option<Vec<u8>>,
    pub(crate) real_size: Option<u64>,
    /// Offsets and lengths in turn, of formats 0.0 and 0.1.
    pub(crate) numbers: Option<Vec<u64>>,
}

impl SparseWords {
    /// Pairs of a map that stood in the header itself.
    pub(crate) fn fragments(&self) -> Result<Option<Vec<Fragment>>> {
        let Some(numbers) = &self.numbers else {
            return Ok(None);
        };
        if numbers.len() % 2 != 0 {
            return Err(malformed("a sparse map with an odd number of words"));
        }
        let pairs = numbers.chunks_exact(2).map(|pair| Fragment {
            offset: pair[0],
            length: pair[1],
        });
        Ok(Some(pairs.collect()))
    }
}

fn malformed(what: &str) -> Error {
    Error::Archive(format!("PAX header with {what}"))
}

impl Extended {
    /// Adds the records of one header.
    pub(crate) fn parse(&mut self, mut rest: &[u8]) -> Result<()> {
        while !rest.is_empty() {
            let (record, behind) = split_record(rest)?;
            let equals = record.iter().position(|byte| *byte == b'=');
            let equals = equals.ok_or_else(|| malformed("a record without a value"))?;
            self.take(&record[..equals], &record[equals + 1..])?;
            rest = behind;
        }
        Ok(())
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if value.is_empty() && self.clear(key) {
            return Ok(());
        }
        match key {
            b"path" => self.path = Some(text(value)?),
            b"linkpath" => self.link = Some(text(value)?),
            b"size" => self.size = Some(number(value)?),
            b"uid" => self.uid = Some(number(value)?),
            b"gid" => self.gid = Some(number(value)?),
            b"mtime" => self.mtime = Some(moment(value)?),
            b"atime" => self.atime = Some(moment(value)?),
            b"GNU.sparse.major" => self.sparse.major = number(value)?,
            b"GNU.sparse.minor" => self.sparse.minor = number(value)?,
            b"GNU.sparse.name" => self.sparse.name = Some(text(value)?),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => {
                self.sparse.real_size = Some(number(value)?);
            }
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                let numbers = self.sparse.numbers.get_or_insert_default();
                numbers.push(number(value)?);
            }
            b"GNU.sparse.map" => {
                let words = value.split(|byte| *byte == b',').filter(|w| !w.is_empty());
                self.sparse.numbers = Some(words.map(number).collect::<Result<_>>()?);
            }
            _ => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

impl Extended {
    /// Forgets a value, so that the ordinary header's counts again; false when there is none of it.
    fn clear(&mut self, key: &[u8]) -> bool {
        match key {
            b"path" => self.path = None,
            b"linkpath" => self.link = None,
            b"size" => self.size = None,
            b"uid" => self.uid = None,
            b"gid" => self.gid = None,
            b"mtime" => self.mtime = None,
            b"atime" => self.atime = None,
            _ => return false,
        }
        true
    }
}

/// The first record without its length and newline, and what follows it.
fn split_record(bytes: &[u8]) -> Result<(&[u8], &[u8])> {
    const DIGITS: usize = 10;
    let space = bytes.iter().take(DIGITS).position(|byte| *byte == b' ');
    let space = space.ok_or_else(|| malformed("a record without a length"))?;
    let length = usize::try_from(number(&bytes[..space])?).unwrap_or(usize::MAX);
    // The shortest record is "5 =\n"; the length counts itself.
    if length < space + 3 || length > bytes.len() || bytes[length - 1] != b'\n' {
        return Err(malformed("a record of wrong length"));
    }
    Ok((&bytes[space + 1..length - 1], &bytes[length..]))
}

fn text(value: &[u8]) -> Result<Vec<u8>> {
    if value.contains(&0) {
        return Err(malformed("a NUL inside a name"));
    }
    Ok(value.to_vec())
}

/// A decimal number without sign.
fn number(value: &[u8]) -> Result<u64> {
    decimal(value).ok_or_else(|| malformed("a number that is none"))
}

/// Decimal seconds; what lies before the epoch is taken as the epoch, as other runtimes do.
fn moment(value: &[u8]) -> Result<Moment> {
    if value.first() == Some(&b'-') {
        return Ok(Moment::default());
    }
    let point = value.iter().position(|byte| *byte == b'.');
    let (whole, fraction) = match point {
        Some(point) => (&value[..point], &value[point + 1..]),
        None => (value, &b""[..]),
    };
    let mut nanoseconds = 0;
    for index in 0..9 {
        let digit = fraction.get(index).copied().unwrap_or(b'0');
        if !digit.is_ascii_digit() {
            return Err(malformed("a time that is none"));
        }
        nanoseconds = nanoseconds * 10 + u32::from(digit - b'0');
    }
    Ok(Moment {
        seconds: i64::try_from(number(whole)?).unwrap_or_default(),
        nanoseconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let body = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
        let mut length = body.len();
        while length != body.len() + length.to_string().len() {
            length = body.len() + length.to_string().len();
        }
        [length.to_string().into_bytes(), body].concat()
    }

    #[test]
    fn values_may_hold_any_byte() {
        let value = b"a\nb\0c=d\n";
        let mut extended = Extended::default();
        let records = [
            record("SCHILY.xattr.user.x", value),
            record("path", "ä/b".as_bytes()),
            record("mtime", b"12.5"),
            record("comment", b"whatever"),
        ];
        extended.parse(&records.concat()).unwrap();
        assert_eq!(extended.xattrs, [(b"user.x".to_vec(), value.to_vec())]);
        assert_eq!(extended.path.as_deref(), Some("ä/b".as_bytes()));
        let moment = extended.mtime.unwrap();
        assert_eq!((moment.seconds, moment.nanoseconds), (12, 500_000_000));
    }

    /// Records of odd but common forms, and what Go's reader makes of them.
    #[test]
    fn odd_but_common_records() {
        type Look = fn(&Extended) -> bool;
        type Records<'a> = &'a [(&'a str, &'a [u8])];
        let cases: [(Records<'_>, Look); 12] = [
            (&[("GNU.sparse.map", b""), ("GNU.sparse.size", b"9")], |e| {
                e.sparse.numbers.as_deref() == Some(&[])
            }),
            (&[("path", b"a"), ("path", b"b")], |e| {
                e.path.as_deref() == Some(b"b")
            }),
            (&[("path", b"a"), ("path", b"")], |e| e.path.is_none()),
            (&[("uid", b""), ("gid", b""), ("size", b"")], |e| {
                (e.uid, e.gid, e.size) == (None, None, None)
            }),
            (&[("mtime", b""), ("linkpath", b"")], |e| {
                e.mtime.is_none() && e.link.is_none()
            }),
            (&[("uid", b"0007")], |e| e.uid == Some(7)),
            (&[("mtime", b"1."), ("atime", b"-1.5")], |e| {
                e.mtime.unwrap().seconds == 1 && e.atime == Some(Moment::default())
            }),
            (&[("mtime", b"1.1234567891234")], |e| {
                e.mtime.unwrap().nanoseconds == 123_456_789
            }),
            (&[("SCHILY.xattr.user.empty", b"")], |e| {
                e.xattrs == [(b"user.empty".to_vec(), Vec::new())]
            }),
            (&[("path", b"./a=b/c")], |e| {
                e.path.as_deref() == Some(b"./a=b/c")
            }),
            (
                &[("uname", b"me"), ("comment", b""), ("vendor.x", b"1")],
                |e| e.path.is_none() && e.xattrs.is_empty(),
            ),
            (&[("LIBARCHIVE.xattr.user.x", b"eA==")], |e| {
                e.xattrs.is_empty()
            }),
        ];
        for (records, look) in cases {
            let mut extended = Extended::default();
            let bytes: Vec<u8> = records.iter().flat_map(|(k, v)| record(k, v)).collect();
            let parsed = extended.parse(&bytes);
            assert!(
                parsed.is_ok() && look(&extended),
                "{records:?} {extended:?}"
            );
        }
    }

    #[test]
    fn malformed_records_are_errors() {
        let cases: [&[u8]; 9] = [
            b"6 a=b",
            b"7 a=b\n",
            b"99 a=b\n",
            b"0 a=b\n",
            b"3 \n",
            b"-6 a=b\n",
            b"nothing at all",
            b"11 size=1x\n",
            b"12 path=a\0b\n",
        ];
        for case in cases {
            let shown = String::from_utf8_lossy(case);
            assert!(Extended::default().parse(case).is_err(), "{shown:?}");
        }
    }
}
