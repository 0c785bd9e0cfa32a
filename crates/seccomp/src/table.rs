//! Architectures and their system call numbers.

use std::collections::HashMap;
use std::sync::OnceLock;

use crate::{aarch64, x86_64};

/// An architecture that filters can be compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// x86_64; i386 and x32 calls are refused.
    X86_64,
    /// 64-bit ARM; 32-bit calls are refused.
    Aarch64,
}

impl Arch {
    /// The architecture of this build.
    #[must_use]
    pub fn native() -> Self {
        if cfg!(target_arch = "aarch64") {
            Self::Aarch64
        } else {
            Self::X86_64
        }
    }

    /// `AUDIT_ARCH_*` of linux/audit.h.
    pub(crate) fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    fn table(self) -> &'static HashMap<&'static str, u32> {
        static X86_64: OnceLock<HashMap<&str, u32>> = OnceLock::new();
        static AARCH64: OnceLock<HashMap<&str, u32>> = OnceLock::new();
        match self {
            Self::X86_64 => X86_64.get_or_init(|| parse(x86_64::NAMES)),
            Self::Aarch64 => AARCH64.get_or_init(|| parse(aarch64::NAMES)),
        }
    }

    /// The number of a system call; `None` when the architecture does not have it.
    #[must_use]
    pub fn number(self, name: &str) -> Option<u32> {
        self.table().get(name).copied()
    }

    /// Every name of the table, sorted.
    pub(crate) fn names(self) -> Vec<&'static str> {
        let mut names: Vec<&str> = self.table().keys().copied().collect();
        names.sort_unstable();
        names
    }
}

fn parse(text: &'static str) -> HashMap<&'static str, u32> {
    let mut next = 0;
    let mut table = HashMap::new();
    for word in text.split_whitespace() {
        match word
            .strip_prefix('@')
            .and_then(|number| number.parse().ok())
        {
            Some(number) => next = number,
            None => {
                table.insert(word, next);
                next += 1;
            }
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_known_numbers() {
        let cases = [
            ("read", 0, 63),
            ("openat", 257, 56),
            ("clone", 56, 220),
            ("execve", 59, 221),
            ("bpf", 321, 280),
            ("pidfd_send_signal", 424, 424),
            ("mseal", 462, 462),
        ];
        for (name, x86, arm) in cases {
            assert_eq!(Arch::X86_64.number(name), Some(x86), "{name}");
            assert_eq!(Arch::Aarch64.number(name), Some(arm), "{name}");
        }
        assert_eq!(Arch::Aarch64.number("open"), None);
    }
}
