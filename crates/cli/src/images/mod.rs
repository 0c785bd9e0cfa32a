//! Images come to nodes from a registry that this program is while it brings them.

mod architecture;
mod archive;
pub mod arrival;
mod blob;
#[cfg(test)]
pub mod client;
mod identity;
mod node_image;
mod registry;

pub use architecture::architecture;
pub use archive::Archive;
pub use blob::{Blob, Content, Image};
pub use node_image::node_image;
pub use registry::Registry;

use std::path::Path;

use crate::disk::{make_dir, write, write_private};
use crate::failure::Result;

/// The file with the certificate of a registry of ours, beside the `hosts.toml` that leads to it.
pub const CERTIFICATE: &str = "crisp-registry.crt";

/// Whose the images of a host are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// Ours alone: no network knows the host.
    Ours,
    /// The world's.
    Others,
}

/// The content of a host's directory by which a crispd looks for the host's images at a registry of ours.
#[derive(Debug, Clone)]
pub struct Way {
    /// Of `hosts.toml`. It tells the way to images of an owner, and is for crispd alone.
    pub hosts: String,
    /// Of [`CERTIFICATE`].
    pub certificate: String,
}

impl Way {
    /// The way to a URL. Where it has not the image, the host itself is asked, unless it is of ours alone.
    fn to(url: &str, certificate: &str, whose: Host) -> Self {
        let ca = format!("ca = \"{CERTIFICATE}\"\n");
        let server = match whose {
            Host::Ours => format!("server = \"{url}\"\n{ca}"),
            Host::Others => String::new(),
        };
        Self {
            hosts: format!(
                "{server}[host.\"{url}\"]\ncapabilities = [\"pull\", \"resolve\"]\n{ca}"
            ),
            certificate: certificate.to_owned(),
        }
    }

    /// Writes it into a host's directory.
    pub fn write(&self, place: &Path) -> Result<()> {
        make_dir(place)?;
        // A crispd that looks in between finds no settings that need what is not there.
        write(&place.join(CERTIFICATE), self.certificate.as_bytes())?;
        write_private(&place.join("hosts.toml"), self.hosts.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_world_is_asked_for_what_is_not_ours() {
        let url = "https://127.0.0.1:1/x";
        let server = "server = \"https://127.0.0.1:1/x\"\nca = \"crisp-registry.crt\"\n";
        let hosts = |whose| Way::to(url, "", whose).hosts;
        assert!(hosts(Host::Ours).starts_with(server));
        assert!(!hosts(Host::Others).contains("server"));
        for whose in [Host::Ours, Host::Others] {
            assert!(hosts(whose).ends_with("\nca = \"crisp-registry.crt\"\n"));
        }
    }
}
