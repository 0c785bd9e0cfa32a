//! Images come to nodes from a registry that this program is while it brings them.

mod architecture;
mod archive;
pub mod arrival;
mod blob;
mod node_image;
mod registry;

pub use architecture::architecture;
pub use archive::Archive;
pub use blob::{Blob, Content, Image};
pub use node_image::node_image;
pub use registry::Registry;

use std::path::Path;

use crate::disk::{make_dir, write};
use crate::failure::Result;

/// Whose the images of a host are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// Ours alone: no network knows the host.
    Ours,
    /// The world's.
    Others,
}

/// Has a crispd look for the images of a host at a registry on plain HTTP first. Where that has not the
/// image, the host itself is asked, unless it is of ours alone.
pub fn redirect(certs: &Path, host: &str, registry: &str, whose: Host) -> Result<()> {
    let dir = certs.join(host);
    make_dir(&dir)?;
    write(&dir.join("hosts.toml"), hosts(registry, whose).as_bytes())
}

/// The content of a `hosts.toml` that leads there.
pub fn hosts(registry: &str, whose: Host) -> String {
    let server = match whose {
        Host::Ours => format!("server = \"{registry}\"\n"),
        Host::Others => String::new(),
    };
    format!("{server}[host.\"{registry}\"]\ncapabilities = [\"pull\", \"resolve\"]\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_world_is_asked_for_what_is_not_ours() {
        let registry = "http://127.0.0.1:1/x";
        let server = "server = \"http://127.0.0.1:1/x\"";
        assert!(hosts(registry, Host::Ours).contains(server));
        assert!(!hosts(registry, Host::Others).contains("server"));
    }
}
