//! passwd(5) and group(5) as an image brings them: untrusted, so lines are bounded, and what does
//! not parse is nobody.

use crisp_model::security::id_of;

/// No line of an honest database is longer.
const MAX_LINE: usize = 64 << 10;
/// The kernel gives a process no more groups (`NGROUPS_MAX`).
pub(crate) const MAX_GROUPS: usize = 65_536;

/// A line of `/etc/passwd`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Account<'a> {
    pub(crate) name: &'a str,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: &'a str,
}

/// A line of `/etc/group`.
#[derive(Debug)]
pub(crate) struct Group<'a> {
    pub(crate) name: &'a str,
    pub(crate) gid: u32,
    members: &'a str,
}

impl Group<'_> {
    pub(crate) fn has(&self, name: &str) -> bool {
        self.members.split(',').any(|member| member.trim() == name)
    }
}

fn lines(file: &[u8]) -> impl Iterator<Item = &str> {
    file.split(|byte| *byte == b'\n')
        .filter(|line| line.len() <= MAX_LINE)
        .filter_map(|line| std::str::from_utf8(line).ok())
        .map(str::trim)
}

pub(crate) fn accounts(passwd: &[u8]) -> impl Iterator<Item = Account<'_>> {
    lines(passwd).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = id_of(fields.nth(1)?)?;
        let gid = id_of(fields.next()?)?;
        let home = fields.nth(1).unwrap_or_default();
        Some(Account {
            name,
            uid,
            gid,
            home,
        })
    })
}

pub(crate) fn groups(group: &[u8]) -> impl Iterator<Item = Group<'_>> {
    lines(group).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = id_of(fields.nth(1)?)?;
        let members = fields.next().unwrap_or_default();
        Some(Group { name, gid, members })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_parse_is_nobody() {
        let long = format!("long:x:1:1:{}:/:\n", "a".repeat(MAX_LINE));
        let text = format!(
            "{long}\nroot:x:0:0:root:/root:/bin/sh\nbad:x:-1:0::/:\nbig:x:4294967296:0::/:\nhalf:x:1\n:x:1:1::/:\nlast:x:7:8"
        );
        let found: Vec<_> = accounts(text.as_bytes())
            .map(|a| (a.name, a.uid, a.gid, a.home))
            .collect();
        assert_eq!(found, [("root", 0, 0, "/root"), ("last", 7, 8, "")]);
        let text = b"root:x:0:root\nwheel:x:10:root, bin\nbad:x:y:root\n\xff:x:1:root\n";
        let of_bin: Vec<_> = groups(text)
            .filter(|g| g.has("bin"))
            .map(|g| g.gid)
            .collect();
        assert_eq!(of_bin, [10]);
    }
}
