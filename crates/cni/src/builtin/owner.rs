//! An owner is one attachment as CNI names it: a container and an interface in it.
//!
//! Addresses, host ports and links all carry their owner, so that a collection can compare records
//! and kernel from either side.

/// Every link of ours starts with this.
pub(crate) const LINK_PREFIX: &str = "cr";

/// One attachment, as CNI names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    pub container: String,
    pub interface: String,
}

/// A stable number of a text (FNV-1a), to spread owners over a subnet or over names.
pub(crate) fn spread(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl Owner {
    /// The form in which records and comments name it.
    pub(crate) fn key(&self) -> String {
        format!("{}/{}", self.container, self.interface)
    }

    /// The owner that a record or a comment names.
    pub(crate) fn parse(key: &str) -> Option<Self> {
        let (container, interface) = key.split_once('/')?;
        Some(Self {
            container: container.to_owned(),
            interface: interface.to_owned(),
        })
    }

    /// Name of the node's end of the veth pair. For the usual case, a pod id and `eth0`, it is the
    /// start of the id, which an operator recognises; otherwise a hash. The kernel allows 15 bytes.
    pub(crate) fn link(&self) -> String {
        let is_id = self.container.len() == 64
            && self.container.bytes().all(|b| b.is_ascii_hexdigit())
            && self.interface == "eth0";
        let tail = if is_id {
            self.container[..13].to_owned()
        } else {
            format!("{:013x}", spread(&self.key()) >> 12)
        };
        format!("{LINK_PREFIX}{tail}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_named_after_their_owner_and_fit() {
        let owner = |container: &str, interface: &str| Owner {
            container: container.to_owned(),
            interface: interface.to_owned(),
        };
        let pod = owner(&"0123456789abcdef".repeat(4), "eth0");
        assert_eq!(pod.link(), "cr0123456789abc");
        for other in [
            owner(&pod.container, "eth1"),
            owner("x", "eth0"),
            owner("", ""),
        ] {
            assert_eq!(other.link().len(), 15, "{other:?}");
            assert_ne!(other.link(), pod.link());
        }
        assert_eq!(Owner::parse(&pod.key()), Some(pod));
    }
}
