//! `stop` and `start` are a node's power switch.

use super::found::Cluster;
use super::image;
use super::ready::Ready;
use crate::arguments::Common;
use crate::cri::Pod;
use crate::failure::{Failure, Result};
use crate::names::CONTROL;
use crate::node::{self, Node, Nodes};
use crate::programs::Programs;
use crate::progress::Progress;
use crate::watches;

/// Stops a node at once.
pub async fn stop(common: &Common, name: &str) -> Result<()> {
    let progress = Progress::begin();
    let (cluster, _lock) = Cluster::find_to_change(common)?;
    let (cri, pod) = cluster.pod(name).await?;
    let stopped = node::stop(&cri, name, &pod.id).await?;
    progress.done(&match stopped {
        true => format!("{name} stopped"),
        false => format!("{name} did not run"),
    });
    Ok(())
}

/// Starts a node that is stopped, and waits until it does its part.
pub async fn start(common: &Common, name: &str) -> Result<()> {
    let progress = Progress::begin();
    let (cluster, _lock) = Cluster::find_to_change(common)?;
    let (cri, pod) = cluster.pod(name).await?;
    if !pod.is_ready {
        let failure = Failure::new(format!("node {name}: its network went with the last boot"));
        let up = cluster.dir.command("up");
        return Err(failure.remedy(format!("{up} brings all nodes up again")));
    }
    let programs = Programs::find(Some(&cluster.record.kubernetes))?;
    let network = cluster.network()?;
    // A newer version of this program may make another one than `up` made.
    let image = {
        let _decides = cluster.home.lock()?;
        image::ensure(&cluster.daemon(), &cri, &progress).await?
    };
    let node = |name: &str, pod: Pod| Node {
        name: name.to_owned(),
        pod: pod.id,
        address: cluster.record.address(&network, name).into(),
    };
    let mut all = vec![node(name, pod)];
    if name != CONTROL {
        all.push(node(CONTROL, cluster.pod(CONTROL).await?.1));
    }
    let nodes = Nodes {
        record: &cluster.record,
        dir: &cluster.dir,
        cri: &cri,
        cgroup_parent: &cluster.daemon().cgroup_parent(&cluster.record, &network),
        image: &image,
        programs: &programs,
        network: &network,
        resolvers: &cluster.record.resolvers(),
    };
    let stopped = nodes.stopped(&all).await?;
    let has_api = !stopped.contains(&CONTROL);
    watches::check(stopped.into_iter().filter(|stopped| *stopped == name))?;
    let ready = Ready::of(&nodes, &all)?;
    // Asked before the node has a newer word.
    let former = has_api.then(|| ready.heartbeats()).flatten();
    if !nodes.start(&all[0]).await? {
        progress.done(&format!("{name} runs already"));
        return Ok(());
    }
    progress.done(&format!("{name} started"));
    if name != CONTROL && former.is_none() {
        progress.done("warning: the API server does not tell whether it is Ready");
    }
    ready.started(&all[0], former.as_ref(), &progress).await
}
