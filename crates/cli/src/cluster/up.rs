//! `up` makes a cluster, and brings one up again that is there: each step looks first whether it has
//! been done.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::Duration;

use futures::future::try_join_all;

use crate::arguments::{Common, Up};
use crate::cri::Cri;
use crate::daemon::Daemon;
use crate::failure::{Context as _, Failure, Remedy as _, Result};
use crate::home::{ClusterDir, Home};
use crate::images::{self, Registry};
use crate::kubectl::{self, Kubectl};
use crate::manifests;
use crate::names::{self, CONTROL, ClusterName};
use crate::network;
use crate::node::{self, Node, Nodes};
use crate::programs::Programs;
use crate::progress::Progress;
use crate::record::Record;
use crate::settings::Settings;

/// How many nodes a new cluster has.
const USUAL: u8 = 3;
/// How long the API server may take to answer.
const API: Duration = Duration::from_secs(300);
/// How long the nodes may take to be Ready.
const READY: Duration = Duration::from_secs(300);

/// Makes a cluster, or brings it up again.
pub async fn up(common: &Common, up: &Up) -> Result<()> {
    let progress = Progress::begin();
    let home = Home::at(&common.dir)?;
    let dir = home.cluster(&common.name);
    let former = Record::read(&dir)?;
    let named = up.kubernetes.as_deref();
    let kept = former.as_ref().map(|record| record.kubernetes.as_path());
    let programs = Programs::find(named.or(kept))?;
    let settings = Settings::read(up, &programs.ours)?;
    dir.check(&names::worker(up.nodes.unwrap_or(USUAL)))?;
    let _lock = home.lock()?;
    let record = plan(&home, &common.name, up, &programs.kubernetes)?;
    if former.is_some() {
        settings.fit(&dir)?;
    }
    record.write(&dir)?;
    settings.keep(&dir, &record)?;
    let made = make(&home, &dir, &record, &programs, &progress).await;
    made.remedy(|| {
        format!(
            "`crisp cluster up --name {name}` goes on from here, `crisp cluster delete --name \
             {name}` removes what there is; logs are in {}",
            dir.path().join("nodes/*/log").display(),
            name = record.name,
        )
    })?;
    tell(&dir, &record, &programs.kubernetes);
    Ok(())
}

/// Decides how the cluster is to be. A cluster that is there stays as it was made.
fn plan(home: &Home, name: &ClusterName, up: &Up, kubernetes: &Path) -> Result<Record> {
    let Some(mut former) = Record::read(&home.cluster(name))? else {
        let mut others = Vec::new();
        for other in home.names()? {
            // A record that cannot be read has a number that is not known.
            others.extend(Record::read(&home.cluster(&other))?);
        }
        let number = Record::free_number(others.iter()).ok_or_else(|| {
            Failure::new(format!(
                "cluster {name}: there are as many clusters as there can be"
            ))
        })?;
        let nodes = up.nodes.unwrap_or(USUAL);
        let mut record = Record::new(name.clone(), nodes, number, kubernetes.to_owned());
        record.port = free_port()?;
        record.publish.clone_from(&up.publish);
        return Ok(record);
    };
    let same_nodes = up.nodes.is_none_or(|nodes| nodes == former.nodes);
    let same_ports = up.publish.is_empty() || up.publish == former.publish;
    if same_nodes && same_ports {
        kubernetes.clone_into(&mut former.kubernetes);
        return Ok(former);
    }
    let text = format!(
        "cluster {name}: it is there, with {} nodes and {} published ports",
        former.nodes,
        former.publish.len()
    );
    Err(Failure::new(text).remedy("leave --nodes and --publish out, or delete the cluster first"))
}

/// A port of loopback that nobody has now.
fn free_port() -> Result<u16> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let address = bound.and_then(|listener| listener.local_addr());
    let address = address.context(|| "port for the API server: find a free one".to_owned())?;
    Ok(address.port())
}

async fn make(
    home: &Home,
    dir: &ClusterDir,
    record: &Record,
    programs: &Programs,
    progress: &Progress,
) -> Result<()> {
    let daemon = Daemon::of(home);
    if daemon.ensure(&programs.ours).await? {
        progress.done("crispd for nodes started");
    }
    let cri = daemon.cri("crispd for nodes")?;
    let image = ensure_image(&daemon, &cri, progress).await?;
    let resolvers = network::resolvers();
    let nodes = Nodes {
        record,
        dir,
        cri: &cri,
        image: &image,
        programs,
        resolvers: &resolvers,
    };
    let all = pods(&nodes, progress).await?;
    start_control(&nodes, &all, progress).await?;
    start_workers(&nodes, &all, progress).await
}

/// Brings the image of nodes to the outer crispd, where it is not there.
async fn ensure_image(daemon: &Daemon, cri: &Cri, progress: &Progress) -> Result<String> {
    let image = images::node_image()?;
    if cri.has_image(&image.name).await? {
        return Ok(image.name);
    }
    let name = image.name.clone();
    let registry = Registry::serve(Ipv4Addr::LOCALHOST.into(), &[image]).await?;
    let host = name.split('/').next().unwrap_or_default();
    images::redirect(
        &daemon.registries(),
        host,
        &registry.address.to_string(),
        true,
    )?;
    cri.pull(&name).await?;
    progress.done("image of nodes made");
    Ok(name)
}

/// Gives each node its pod, and writes the nodes' files where a pod is new.
async fn pods(nodes: &Nodes<'_>, progress: &Progress) -> Result<Vec<Node>> {
    let there = nodes
        .cri
        .pods(node::labels(&nodes.record.name.to_string()))
        .await?;
    let names: Vec<String> = nodes.record.all().collect();
    let made = names.iter().map(|name| nodes.ensure_pod(name, &there));
    let (all, new): (Vec<Node>, Vec<bool>) = try_join_all(made).await?.into_iter().unzip();
    if new.contains(&true) || !nodes.dir.kubeconfig().is_file() {
        node::write_files(nodes, &all)?;
        progress.done("networks and certificates of nodes made");
    }
    Ok(all)
}

fn kubectl(nodes: &Nodes<'_>) -> Kubectl {
    Kubectl {
        program: nodes.programs.kubernetes.join("kubectl"),
        kubeconfig: nodes.dir.kubeconfig(),
        whose: format!("cluster {}", nodes.record.name),
    }
}

async fn start_control(nodes: &Nodes<'_>, all: &[Node], progress: &Progress) -> Result<()> {
    let control = all.iter().find(|node| node.name == CONTROL);
    let control = control.ok_or_else(|| Failure::new("control: it has no pod"))?;
    nodes.start(control).await?;
    let kubectl = kubectl(nodes);
    let is_ready = |kubectl: &Kubectl| kubectl.run(&["get", "--raw", "/readyz"], b"").map(Some);
    kubectl
        .until("the API server answers", API, is_ready)
        .await?;
    progress.done("API server answers");
    let workers: Vec<(u8, String)> = nodes.record.workers().collect();
    let ranges = workers.iter();
    let ranges = ranges.map(|(number, name)| (name.as_str(), network::pods_of(*number)));
    let objects = manifests::objects(&control.address.to_string(), ranges);
    kubectl
        .until("its first objects are made", API, |kubectl| {
            kubectl.apply(&objects).map(Some)
        })
        .await
}

async fn start_workers(nodes: &Nodes<'_>, all: &[Node], progress: &Progress) -> Result<()> {
    let kubectl = kubectl(nodes);
    let listed = kubectl.until("its nodes are listed", API, |kubectl| {
        kubectl.get(&["nodes"]).map(Some)
    });
    let mut former = kubectl::heartbeats(&listed.await?);
    let workers = all.iter().filter(|node| node.name != CONTROL);
    let started = workers.map(async |node| Ok((node, nodes.start(node).await?)));
    for (node, is_new) in try_join_all(started).await? {
        // The kubelet of one that runs goes on, and its last word holds.
        if !is_new {
            former.remove(&node.name);
        }
    }
    progress.done("nodes started");
    let expected: BTreeSet<String> = nodes.record.workers().map(|(_, name)| name).collect();
    let mut seen = BTreeSet::new();
    let look = |kubectl: &Kubectl| {
        for name in kubectl::ready(&kubectl.get(&["nodes"])?, &former) {
            if expected.contains(&name) && seen.insert(name.clone()) {
                progress.done(&format!("{name} Ready"));
            }
        }
        Ok((seen == expected).then_some(()))
    };
    kubectl.until("all nodes are Ready", READY, look).await?;
    // The controller manager makes it, in its own time; without it the API server refuses pods.
    let can_have_pods = |kubectl: &Kubectl| {
        let words = ["--namespace=default", "serviceaccounts", "default"];
        kubectl.get(&words).map(Some)
    };
    let what = "the service account of pods is made";
    kubectl.until(what, READY, can_have_pods).await?;
    progress.done("pods can come");
    Ok(())
}

#[expect(clippy::print_stdout, reason = "this is what to go on with")]
fn tell(dir: &ClusterDir, record: &Record, kubernetes: &Path) {
    println!("export KUBECONFIG={}", dir.kubeconfig().display());
    println!("{} get nodes", kubernetes.join("kubectl").display());
    for publish in &record.publish {
        println!(
            "# 127.0.0.1:{} leads to port {} of node-1",
            publish.host, publish.node
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up(nodes: Option<u8>, publish: &[&str]) -> Up {
        Up {
            nodes,
            kubernetes: None,
            runtime_config: None,
            registry_config: None,
            publish: publish.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn a_cluster_that_is_there_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path()).unwrap();
        let name: ClusterName = "x".parse().unwrap();
        let plan = |wish: &Up| plan(&home, &name, wish, Path::new("/k"));
        let new = plan(&up(None, &["80:30080"])).unwrap();
        assert_eq!((new.nodes, new.number, new.publish.len()), (3, 1, 1));
        new.write(&home.cluster(&name)).unwrap();
        for same in [up(None, &[]), up(Some(3), &["80:30080"])] {
            assert_eq!(plan(&same).unwrap(), new);
        }
        for other in [up(Some(2), &[]), up(None, &["81:30080"])] {
            let refused = plan(&other).unwrap_err().to_string();
            assert!(refused.contains("delete the cluster first"), "{refused}");
        }
        let beside: ClusterName = "y".parse().unwrap();
        let second = super::plan(&home, &beside, &up(None, &[]), Path::new("/k")).unwrap();
        assert_eq!(second.number, 2);
    }
}
