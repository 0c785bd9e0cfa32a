//! Images come to nodes from a registry that this program is while it brings them.

mod archive;
mod blob;
mod node_image;
mod registry;

pub use archive::Archive;
pub use node_image::node_image;
pub use registry::Registry;

use std::path::Path;

use crate::disk::{make_dir, write};
use crate::failure::Result;

/// Has a crispd look for the images of a host at a registry on plain HTTP first. Where that has not the
/// image, the host itself is asked, unless the host is of ours alone.
pub fn redirect(certs: &Path, host: &str, registry: &str, is_ours: bool) -> Result<()> {
    let dir = certs.join(host);
    make_dir(&dir)?;
    write(&dir.join("hosts.toml"), hosts(registry, is_ours).as_bytes())
}

fn hosts(registry: &str, is_ours: bool) -> String {
    let server = match is_ours {
        true => format!("server = \"http://{registry}\"\n"),
        false => String::new(),
    };
    format!("{server}[host.\"http://{registry}\"]\ncapabilities = [\"pull\", \"resolve\"]\n")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_world_is_asked_for_what_is_not_ours() {
        assert!(super::hosts("127.0.0.1:1", true).contains("server = \"http://127.0.0.1:1\""));
        assert!(!super::hosts("127.0.0.1:1", false).contains("server"));
    }
}
