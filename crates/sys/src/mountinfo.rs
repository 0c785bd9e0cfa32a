//! `/proc/self/mountinfo`, parsed (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One mount of this mount namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountInfo {
    /// Mount id.
    pub id: u64,
    /// Root of the mount within its file system.
    pub root: PathBuf,
    /// Where it is mounted.
    pub target: PathBuf,
    /// Per-mount options.
    pub options: String,
    /// Propagation fields (`shared:1`, `master:2`, …).
    pub propagation: Vec<String>,
    /// File system type.
    pub kind: String,
    /// Per-superblock options.
    pub super_options: String,
}

/// Every mount of this mount namespace, in order.
///
/// # Errors
/// When procfs is not mounted.
pub fn mounts() -> io::Result<Vec<MountInfo>> {
    let text = std::fs::read("/proc/self/mountinfo")?;
    Ok(parse_all(&text).collect())
}

/// The mounts of a mount table that was read elsewhere.
pub fn parse_all(text: &[u8]) -> impl Iterator<Item = MountInfo> {
    text.split(|byte| *byte == b'\n').filter_map(parse)
}

fn parse(line: &[u8]) -> Option<MountInfo> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let dash = fields.iter().position(|field| *field == b"-")?;
    let text = |index: usize| Some(String::from_utf8_lossy(fields.get(index)?).into_owned());
    Some(MountInfo {
        id: text(0)?.parse().ok()?,
        root: unescape(fields.get(3)?),
        target: unescape(fields.get(4)?),
        options: text(5)?,
        propagation: (6..dash).filter_map(text).collect(),
        kind: text(dash + 1)?,
        super_options: text(dash + 3)?,
    })
}

/// Space, tab, newline and backslash are written as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = (first == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_parse() {
        let line =
            b"36 35 98:0 /m\\040x /a\\011b rw,noatime shared:1 master:2 - ext4 /dev/r rw,e=c";
        let mount = parse(line).unwrap();
        assert_eq!((mount.root, mount.target), ("/m x".into(), "/a\tb".into()));
        assert_eq!(mount.propagation, ["shared:1", "master:2"]);
        assert_eq!(
            (mount.kind.as_str(), mount.super_options.as_str()),
            ("ext4", "rw,e=c")
        );
        assert_eq!(parse(b""), None);
    }
}
