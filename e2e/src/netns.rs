//! The network namespace that a daemon under test lives in, and a neighbour to call it from.
//!
//! A child inherits the namespace of the thread that spawned it, so a command is run "inside" by
//! spawning it from a thread that moved there.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::tools;

/// Address of the node on the wire to its neighbour.
pub const NODE: &str = "192.0.2.1";
/// Address of the neighbour.
pub const NEIGHBOUR: &str = "192.0.2.2";
/// IPv6 address of the node.
pub const NODE6: &str = "2001:db8::1";
/// IPv6 address of the neighbour.
pub const NEIGHBOUR6: &str = "2001:db8::2";

/// A network namespace; it goes when nobody uses it any more.
#[derive(Debug)]
pub struct Net(OwnedFd);

impl Net {
    /// A new one with its loopback up.
    #[must_use]
    pub fn new() -> Self {
        let made = on_thread(|| {
            #[expect(deprecated, reason = "the thread has no other users of its namespace")]
            rustix::thread::unshare(UnshareFlags::NEWNET).unwrap();
            drop(tools::run("ip", &["link", "set", "lo", "up"]));
            OwnedFd::from(File::open("/proc/thread-self/ns/net").unwrap())
        });
        Self(made)
    }

    /// The one that a path names, as the pin of a pod's.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self(File::open(path).unwrap().into())
    }

    /// A node and a neighbour that are joined by a cable.
    #[must_use]
    pub fn pair() -> (Self, Self) {
        let (node, neighbour) = (Self::new(), Self::new());
        node.ip(&format!(
            "link add up0 type veth peer name up0 netns {}",
            neighbour.path()
        ));
        for (net, addresses) in [
            (&node, [format!("{NODE}/24"), format!("{NODE6}/64")]),
            (
                &neighbour,
                [format!("{NEIGHBOUR}/24"), format!("{NEIGHBOUR6}/64")],
            ),
        ] {
            net.ip("link set up0 up");
            for address in addresses {
                let nodad = if address.contains(':') { " nodad" } else { "" };
                net.ip(&format!("addr add {address} dev up0{nodad}"));
            }
        }
        (node, neighbour)
    }

    /// A path that names it while this value lives.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Runs `work` inside; processes that it spawns are inside too.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        on_thread(|| {
            move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        })
    }

    /// Runs `ip` with these words inside.
    pub fn ip(&self, words: &str) -> String {
        let words: Vec<&str> = words.split(' ').collect();
        self.run(|| tools::run("ip", &words))
    }
}

impl Default for Net {
    fn default() -> Self {
        Self::new()
    }
}

fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
