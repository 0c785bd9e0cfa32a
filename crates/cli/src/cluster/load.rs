//! `load` brings images to all nodes of a cluster, so that pods of any node start without a registry.

use std::collections::BTreeSet;
use std::path::Path;

use crisp_model::ImageRef;
use futures::future::try_join_all;

use super::conditions::through_firewalls;
use super::found::Cluster;
use super::redirects::Redirects;
use crate::arguments::Common;
use crate::cri::Cri;
use crate::failure::{Context as _, Failure, Remedy as _, Result};
use crate::images::{Archive, Host, Image, Registry, arrival};
use crate::interrupt::interruptible;
use crate::progress::Progress;

/// Brings the images of an archive, or one from its registry.
pub async fn load(common: &Common, image: &str, name: Option<&str>) -> Result<()> {
    let progress = Progress::begin();
    let (cluster, _lock) = Cluster::find_to_change(common)?;
    let nodes = nodes(&cluster).await?;
    if is_archive(image, name)? {
        let images = Archive::open(Path::new(image))?.images(name)?;
        let step = serve(&cluster, &nodes, &images, &progress);
        return interruptible("load", step).await;
    }
    try_join_all(nodes.iter().map(|(_, cri)| cri.pull(image))).await?;
    progress.done(&format!("{image} on all nodes"));
    Ok(())
}

/// Whether a name is that of a file. A name that can only be meant as one is not looked for at registries.
fn is_archive(image: &str, name: Option<&str>) -> Result<bool> {
    let path = Path::new(image);
    if path.is_file() {
        return Ok(true);
    }
    let beside = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let looks_like_one = image.starts_with(['/', '.'])
        || path
            .extension()
            .is_some_and(|end| end.eq_ignore_ascii_case("tar"))
        || beside.is_some_and(Path::is_dir)
        || name.is_some();
    match looks_like_one {
        true => Err(Failure::new(format!("{image}: there is no such archive"))
            .remedy("an image of a registry is named as docker.io/library/NAME:TAG")),
        false => Ok(false),
    }
}

/// Brings images from a registry that lasts as long as this.
async fn serve(
    cluster: &Cluster,
    nodes: &[(String, Cri)],
    images: &[Image],
    progress: &Progress,
) -> Result<()> {
    let mut hosts = BTreeSet::new();
    for image in images {
        let name = ImageRef::parse(&image.name);
        let name = name.context(|| format!("image {}: read its name", image.name))?;
        hosts.insert(name.host().to_owned());
    }
    let network = cluster.network()?;
    let registry = Registry::serve(network.gateway().into(), images).await?;
    let redirects = Redirects::begin(&cluster.dir, &cluster.record)?;
    probe(&redirects, nodes, &registry, &network.bridge).await?;
    for host in &hosts {
        for dir in redirects.nodes() {
            registry.way(host, Host::Others).write(&dir.join(host))?;
        }
    }
    for image in images {
        let pulls = nodes.iter().map(async |(name, cri)| {
            let whose = format!("node {name}");
            arrival::pull(cri, &whose, image).await
        });
        try_join_all(pulls).await?;
        progress.done(&format!("{} on all nodes", image.name));
    }
    Ok(())
}

/// Learns whether each node asks this program: one that cannot would take the world's image of that name.
async fn probe(
    redirects: &Redirects,
    nodes: &[(String, Cri)],
    registry: &Registry,
    bridge: &str,
) -> Result<()> {
    let asked = nodes.iter().zip(redirects.nodes());
    let asked = asked.map(async |((name, cri), dir)| {
        let host = arrival::probe_host(name);
        registry.way(&host, Host::Ours).write(&dir.join(&host))?;
        let address = registry.address;
        let asks = arrival::probe(cri, registry, &host).await;
        asks.context(|| format!("node {name}: it does not ask this program at {address}"))
            .remedy(|| {
                format!(
                    "{}; `nft list ruleset` shows what drops it",
                    through_firewalls(bridge)
                )
            })
    });
    try_join_all(asked).await.map(drop)
}

/// Calls to the crispd of each node; refused while one does not run, so that all have the same images.
async fn nodes(cluster: &Cluster) -> Result<Vec<(String, Cri)>> {
    let mut nodes = Vec::new();
    for (_, name) in cluster.record.workers() {
        let cri = Cri::at(&cluster.dir.socket(&name), &format!("node {name}"))?;
        if !cri.answers().await {
            let failure = Failure::new(format!("node {name}: its crispd does not answer"));
            let start = cluster.dir.command(&format!("start {name}"));
            return Err(failure.remedy(format!("{start} starts the node")));
        }
        nodes.push((name, cri));
    }
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::write;

    #[test]
    fn what_can_only_be_a_file_is_not_pulled() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("image");
        write(&file, b"").unwrap();
        assert!(is_archive(file.to_str().unwrap(), None).unwrap());
        let beside = format!("{}/x", dir.path().display());
        for wrong in ["images/web.tar", "web.TAR", "./web", &beside, "src/x"] {
            let refused = is_archive(wrong, None).unwrap_err().to_string();
            assert!(refused.contains("no such archive"), "{refused}");
        }
        assert!(is_archive("web", Some("a:1")).is_err());
        for image in ["web", "docker.io/library/web:1", "web@sha256:0"] {
            assert!(!is_archive(image, None).unwrap(), "{image}");
        }
    }
}
