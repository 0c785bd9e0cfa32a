//! `up` makes a cluster, and brings one up again that is there: each step looks first whether it has
//! been done.

use std::path::Path;

use futures::future::try_join_all;

use super::conditions;
use super::plan::{self, Plan};
use super::ready::Ready;
use super::redirects;
use crate::advice;
use crate::arguments::{Common, Up};
use crate::disk;
use crate::failure::{Failure, Result};
use crate::home::{ClusterDir, Home};
use crate::init::OBJECTS_MADE;
use crate::kubectl;
use crate::manifests;
use crate::names::{self, CONTROL};
use crate::network::Turn;
use crate::node::{self, Node, Nodes};
use crate::programs::Programs;
use crate::progress::{Progress, answer};
use crate::record::Record;
use crate::settings::Settings;
use crate::watches;

/// Makes a cluster, or brings it up again.
pub async fn up(common: &Common, up: &Up) -> Result<()> {
    let progress = Progress::begin();
    let home = Home::at(&common.dir)?;
    let dir = home.cluster(&common.name);
    // Bad input is refused before anything is made, also a lock.
    let settings = Settings::read(up, &programs(up, &dir)?.ours)?;
    dir.check(&names::worker(up.nodes.unwrap_or(plan::USUAL)))?;
    home.claim()?;
    let lock = home.lock_cluster(&common.name)?;
    let was_there = dir.record().exists();
    let begun = async {
        // Another `up` may have made the cluster meanwhile, with programs of its choice.
        let programs = programs(up, &dir)?;
        let plan = plan::begin(common, up, &programs, &settings, &progress).await?;
        Ok::<_, Failure>((plan, programs))
    };
    let (mut plan, programs) = match begun.await {
        Ok(begun) => begun,
        Err(failure) => {
            drop(lock);
            home.tidy(&common.name);
            // It was refused before anything was made, unless the cluster is written down by now.
            let is_begun = !was_there && dir.record().exists();
            return Err(match is_begun {
                true => failure.then_remedy(goes_on(&dir)),
                false => failure,
            });
        }
    };
    let turn = plan.turn.take();
    let made = make(&plan, turn, &programs, &progress).await;
    made.map_err(|failure| failure.then_remedy(goes_on(&dir)))?;
    tell(&dir, &plan.record, &programs.kubernetes)
}

/// The programs that it asks for, or those that the cluster has kept.
fn programs(up: &Up, dir: &ClusterDir) -> Result<Programs> {
    let kept = Record::read(dir)?.map(|record| record.kubernetes);
    Programs::chosen(up, kept.as_deref())
}

/// The remedy for a cluster that is begun.
pub fn goes_on(dir: &ClusterDir) -> String {
    let (up, delete) = (dir.command("up"), dir.command("delete"));
    let logs = dir.path().join("nodes/*/log");
    let logs = logs.display();
    format!("{up} goes on from here, {delete} removes what there is; logs are in {logs}")
}

async fn make(
    plan: &Plan,
    turn: Option<Turn>,
    programs: &Programs,
    progress: &Progress,
) -> Result<()> {
    redirects::end_former(&plan.dir, &plan.record)?;
    let resolvers = plan.record.resolvers();
    if resolvers.is_empty() {
        let up = plan.dir.command("up --resolver IP");
        progress.done(&format!(
            "warning: this machine's servers of names are on its loopback or of IPv6, where nodes cannot \
             ask them: names of the world are not known in the cluster, and images are not pulled by name; \
             {up} names a server with an address of IPv4 beyond loopback"
        ));
    }
    let nodes = Nodes {
        record: &plan.record,
        dir: &plan.dir,
        cri: &plan.cri,
        cgroup_parent: &plan.cgroup_parent,
        image: &plan.image,
        programs,
        network: &plan.network,
        resolvers: &resolvers,
    };
    let made = make_pods(&nodes, progress).await;
    // The bridge is there with the first pod, and so is the crispd's judgement of it.
    conditions::tell_outer(&nodes, progress).await;
    let all = made?;
    drop(turn);
    watches::check(nodes.stopped(&all).await?.into_iter())?;
    node::write_files(&nodes, &all)?;
    let ready = Ready::of(&nodes, &all)?;
    start_control(&nodes, &ready, progress).await?;
    let started = start_workers(&nodes, &all, &ready, progress).await;
    conditions::tell_inner(&nodes, progress).await;
    started?;
    for node in &all {
        if !nodes.is_older(node).await? {
            continue;
        }
        let name = &node.name;
        let [stop, start] =
            ["stop", "start"].map(|verb| plan.dir.command(&format!("{verb} {name}")));
        progress.done(&format!(
            "warning: {name} runs with older settings; {stop} and {start} give it the new ones"
        ));
    }
    Ok(())
}

/// Gives each node its pod.
async fn make_pods(nodes: &Nodes<'_>, progress: &Progress) -> Result<Vec<Node>> {
    let there = nodes
        .cri
        .pods(node::labels(&nodes.record.name.to_string()))
        .await?;
    let names: Vec<String> = nodes.record.all().collect();
    let made = names.iter().map(|name| nodes.ensure_pod(name, &there));
    let (all, new): (Vec<Node>, Vec<bool>) = try_join_all(made).await?.into_iter().unzip();
    if new.contains(&true) {
        progress.done("networks of nodes made");
    }
    Ok(all)
}

async fn start_control(nodes: &Nodes<'_>, ready: &Ready<'_>, progress: &Progress) -> Result<()> {
    nodes.start(ready.control).await?;
    ready.api().await?;
    progress.done("API server answers");
    let workers: Vec<(u8, String)> = nodes.record.workers().collect();
    let ranges = workers
        .iter()
        .map(|(number, name)| (name.as_str(), nodes.network.pods_of(*number)));
    let address = ready.control.address.to_string();
    let objects = manifests::objects(nodes.network, &address, ranges);
    ready.objects(&objects).await?;
    disk::write(&nodes.dir.node(CONTROL).join(OBJECTS_MADE), b"")
}

async fn start_workers(
    nodes: &Nodes<'_>,
    all: &[Node],
    ready: &Ready<'_>,
    progress: &Progress,
) -> Result<()> {
    let mut former = kubectl::heartbeats(&ready.listed().await?);
    let workers = all.iter().filter(|node| node.name != CONTROL);
    let starts = workers.map(async |node| Ok::<_, Failure>((node, nodes.start(node).await?)));
    for (node, is_new) in try_join_all(starts).await? {
        if !is_new {
            // The kubelet of one that runs goes on, and its last word holds.
            former.remove(&node.name);
        }
    }
    progress.done("nodes started");
    ready.nodes(&former, progress).await?;
    ready.services().await?;
    progress.done("pods can come");
    Ok(())
}

/// Tells what to go on with.
fn tell(dir: &ClusterDir, record: &Record, kubernetes: &Path) -> Result<()> {
    let kubectl = kubernetes.join("kubectl").display().to_string();
    let kubeconfig = dir.kubeconfig();
    answer(format_args!("export KUBECONFIG={}", kubeconfig.display()))?;
    answer(format_args!("{} get nodes", advice::quoted(&kubectl)))?;
    for publish in &record.publish {
        answer(format_args!(
            "# 127.0.0.1:{} leads to port {} of node-1",
            publish.host, publish.node
        ))?;
    }
    Ok(())
}
