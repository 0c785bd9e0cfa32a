//! `load` brings images to all nodes of a cluster, so that pods of any node start without a registry.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crisp_model::ImageRef;
use futures::future::try_join_all;

use super::found::Cluster;
use crate::arguments::Common;
use crate::cri::Cri;
use crate::failure::{Context as _, Failure, Remedy as _, Result};
use crate::images::{self, Archive, Registry};
use crate::network::GATEWAY;
use crate::progress::Progress;
use crate::settings;

/// How long pulls of a kubelet may be in the way.
const JOINED: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);

/// Brings the images of an archive, or one from its registry.
pub async fn load(common: &Common, image: &str, name: Option<&str>) -> Result<()> {
    let progress = Progress::begin();
    let cluster = Cluster::find(common)?;
    let _lock = cluster.home.lock()?;
    let nodes = nodes(&cluster).await?;
    let path = Path::new(image);
    if !path.is_file() {
        let is_path = image.starts_with(['/', '.']);
        if is_path || name.is_some() {
            return Err(Failure::new(format!("{image}: there is no such archive")));
        }
        pull(&nodes, image).await?;
        progress.done(&format!("{image} on all nodes"));
        return Ok(());
    }
    let images = Archive::open(path)?.images(name)?;
    let mut redirects = Redirects::default();
    let registry = Registry::serve(GATEWAY.into(), &images).await?;
    let address = registry.address.to_string();
    let mut hosts = BTreeSet::new();
    for image in &images {
        let name = ImageRef::parse(&image.name);
        let name = name.context(|| format!("image {}: read its name", image.name))?;
        hosts.insert(name.host().to_owned());
    }
    for host in &hosts {
        for (_, node) in cluster.record.workers() {
            let certs = cluster.dir.node(&node).join("certs.d");
            redirects
                .0
                .push((certs.join(host), cluster.dir.registries().join(host)));
            images::redirect(&certs, host, &address, false)?;
        }
    }
    for image in &images {
        pull_here(&nodes, &image.name).await?;
        progress.done(&format!("{} on all nodes", image.name));
    }
    Ok(())
}

/// Settings of nodes that give way to those of the cluster's owner with the value.
#[derive(Debug, Default)]
struct Redirects(Vec<(PathBuf, PathBuf)>);

impl Drop for Redirects {
    fn drop(&mut self) {
        for (dir, owners) in &self.0 {
            let restored = match owners.is_dir() {
                true => settings::replace(owners, dir),
                false => crisp_sys::file::remove_tree_if_there(dir)
                    .context(|| format!("{}: remove it", dir.display())),
            };
            if let Err(failure) = restored {
                eprintln!("crisp: {failure}; `crisp cluster up` does it again");
            }
        }
    }
}

/// Calls to the crispd of each node; refused while one does not run, so that all have the same images.
async fn nodes(cluster: &Cluster) -> Result<Vec<Cri>> {
    let mut nodes = Vec::new();
    for (_, name) in cluster.record.workers() {
        let cri = Cri::at(&cluster.dir.socket(&name), &format!("node {name}"))?;
        if !cri.answers().await {
            let failure = Failure::new(format!("node {name}: its crispd does not answer"));
            return Err(failure).remedy(|| format!("`crisp cluster start {name}` starts the node"));
        }
        nodes.push(cri);
    }
    Ok(nodes)
}

/// Pulls what this program serves. A pull that a kubelet began before goes elsewhere, and ours joins it:
/// then it is tried again.
async fn pull_here(nodes: &[Cri], image: &str) -> Result<()> {
    let deadline = Instant::now() + JOINED;
    let pulls = nodes.iter().map(async |node| {
        loop {
            match node.pull(image).await {
                Err(_) if Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
                outcome => return outcome,
            }
        }
    });
    try_join_all(pulls).await.map(drop)
}

async fn pull(nodes: &[Cri], image: &str) -> Result<()> {
    try_join_all(nodes.iter().map(|node| node.pull(image)))
        .await
        .map(drop)
}
