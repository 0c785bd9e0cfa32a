//! Commands that change nothing: which clusters there are, how to reach one and its nodes.

use super::found::Cluster;
use crate::arguments::Common;
use crate::cri::Cri;
use crate::daemon::Daemon;
use crate::failure::{Failure, Remedy as _, Result};
use crate::home::Home;
use crate::node;
use crate::record::Record;

/// Prints a line for each cluster.
#[expect(clippy::print_stdout, reason = "the answer")]
pub async fn list(common: &Common) -> Result<()> {
    let home = Home::at(&common.dir)?;
    let daemon = Daemon::of(&home);
    let cri = match daemon.answers().await? {
        true => Some(daemon.cri("crispd for nodes")?),
        false => None,
    };
    println!("{:<20}  {:>5}  {:<10}  API", "CLUSTER", "NODES", "RUNNING");
    for name in home.names()? {
        let line = match Record::read(&home.cluster(&name)) {
            Ok(Some(record)) => {
                let running = match &cri {
                    Some(cri) => running(cri, &record).await?,
                    None => 0,
                };
                let port = record.port;
                format!(
                    "{:>5}  {running:<10}  https://127.0.0.1:{port}",
                    record.nodes + 1
                )
            }
            // A cluster that was not written down, or cannot be read, can still be deleted.
            Ok(None) => "it has no record: delete it".to_owned(),
            Err(failure) => failure.to_string(),
        };
        println!("{:<20}  {line}", name.to_string());
    }
    Ok(())
}

/// How many of a cluster's nodes run.
async fn running(cri: &Cri, record: &Record) -> Result<usize> {
    let mut count = 0;
    for pod in cri.pods(node::labels(&record.name.to_string())).await? {
        let containers = cri.containers(&pod.id).await?;
        count += usize::from(containers.iter().any(|container| container.runs));
    }
    Ok(count)
}

/// Prints the path of the administrator's kubeconfig.
#[expect(clippy::print_stdout, reason = "the answer")]
pub fn kubeconfig(common: &Common) -> Result<()> {
    let cluster = Cluster::find(common)?;
    let path = cluster.dir.kubeconfig();
    if !path.is_file() {
        let failure = Failure::new(format!("{}: it is not there yet", path.display()));
        return Err(failure).remedy(|| "`crisp cluster up` has to come to its end".to_owned());
    }
    println!("{}", path.display());
    Ok(())
}

/// The first process of a node.
pub async fn process(common: &Common, name: &str) -> Result<i32> {
    let cluster = Cluster::find(common)?;
    let (cri, pod) = cluster.pod(name).await?;
    let containers = cri.containers(&pod.id).await?;
    let running = containers.iter().find(|container| container.runs);
    let running = running
        .ok_or_else(|| Failure::new(format!("node {name}: it is stopped")))
        .remedy(|| format!("`crisp cluster start {name}` starts it"))?;
    cri.process(&running.id).await
}
