//! The last argument of this process, as others read it in `/proc/PID/cmdline`: a process that was
//! started ahead of its purpose writes there what it came to be for.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;

const LINE: &str = "/proc/self/cmdline";

/// Puts another word of the same length in place of the last argument. The kernel keeps arguments
/// in the process' own memory (proc_pid_cmdline(5)), which is written by its file.
///
/// # Errors
/// `InvalidInput` when the length differs, and those of `/proc/self/mem`, where a kernel may forbid
/// to write.
pub fn replace_last(word: &str) -> io::Result<()> {
    let present = last()?;
    if present == word.as_bytes() {
        return Ok(());
    }
    if present.len() != word.len() {
        let text = format!("the argument has {} bytes", present.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let end = end_of_arguments(&stat).ok_or(io::ErrorKind::InvalidData)?;
    // The word and the byte that ends it are the last of all arguments.
    let length = u64::try_from(word.len() + 1).map_err(io::Error::other)?;
    let memory = OpenOptions::new().write(true).open("/proc/self/mem")?;
    memory.write_all_at(word.as_bytes(), end.saturating_sub(length))?;
    match last()? == word.as_bytes() {
        true => Ok(()),
        false => Err(io::Error::other("the argument stayed as it was")),
    }
}

fn last() -> io::Result<Vec<u8>> {
    let line = std::fs::read(LINE)?;
    let line = line.strip_suffix(b"\0").unwrap_or(&line);
    let last = line.rsplit(|byte| *byte == 0).next();
    Ok(last.unwrap_or_default().to_owned())
}

/// `arg_end` of proc_pid_stat(5), field 49. The name in field 2 may hold spaces and parentheses.
fn end_of_arguments(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(49 - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_argument_can_be_told_anew() {
        let present = String::from_utf8(last().unwrap()).unwrap();
        let other: String = present.chars().map(|_| 'x').collect();
        replace_last(&other).unwrap();
        assert_eq!(last().unwrap(), other.as_bytes());
        replace_last(&present).unwrap();
        assert_eq!(last().unwrap(), present.as_bytes());
        let longer = replace_last(&(present + "y")).unwrap_err();
        assert_eq!(longer.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_name_may_look_like_fields() {
        let stat = format!("1 (a) 2 (b)) S {}77 0", "0 ".repeat(45));
        assert_eq!(end_of_arguments(&stat), Some(77));
        assert_eq!(end_of_arguments("1 (a) S 0"), None);
    }
}
