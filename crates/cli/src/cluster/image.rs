//! The image of nodes, where the outer crispd has it not yet.

use std::net::Ipv4Addr;

use crate::cri::Cri;
use crate::daemon::Daemon;
use crate::failure::Result;
use crate::images::{self, Registry};
use crate::progress::Progress;

/// Brings the image of nodes to the outer crispd, and tells its name. The home is locked.
pub async fn ensure(daemon: &Daemon, cri: &Cri, progress: &Progress) -> Result<String> {
    let image = images::node_image()?;
    if cri.has_image(&image.name).await? {
        return Ok(image.name);
    }
    let name = image.name.clone();
    let registry = Registry::serve(Ipv4Addr::LOCALHOST.into(), &[image]).await?;
    let host = name.split('/').next().unwrap_or_default();
    let registries = daemon.registries();
    let way = registry.way(host, images::Host::Ours);
    way.write(&registries.join(host))?;
    cri.pull(&name).await?;
    progress.done("image of nodes made");
    Ok(name)
}
