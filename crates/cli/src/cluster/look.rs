//! Commands that change nothing: which clusters there are, how to reach one and its nodes.

use super::found::Cluster;
use crate::arguments::Common;
use crate::cri::Cri;
use crate::daemon::Daemon;
use crate::failure::{Failure, Remedy as _, Result};
use crate::home::Home;
use crate::node;
use crate::progress::{answer, say};
use crate::record::Record;

/// Prints a line for each cluster.
pub async fn list(common: &Common) -> Result<()> {
    let home = Home::at(&common.dir)?;
    let daemon = Daemon::of(&home);
    let cri = match daemon.answers().await? {
        true => Some(daemon.cri("crispd for nodes")?),
        false => None,
    };
    answer(format_args!(
        "{:<20}  {:>5}  {:<10}  API",
        "CLUSTER", "NODES", "RUNNING"
    ))?;
    let names = home.names()?;
    for name in &names {
        let line = match Record::read(&home.cluster(name)) {
            Ok(Some(record)) => {
                let running = match &cri {
                    Some(cri) => Some(running(cri, &record).await?),
                    None => None,
                };
                line(&record, running)
            }
            // A cluster that was not written down, or cannot be read, can still be deleted.
            Ok(None) => "it has no record: delete it".to_owned(),
            Err(failure) => failure.to_string(),
        };
        answer(format_args!("{:<20}  {line}", name.to_string()))?;
    }
    if let (None, Some(first)) = (&cri, names.first()) {
        let up = home.cluster(first).command("up");
        say(format_args!(
            "crisp: crispd for nodes does not answer; {up} starts it"
        ));
    }
    Ok(())
}

/// The words about a cluster. Nodes go on without their crispd, and nobody else knows how many run.
fn line(record: &Record, running: Option<usize>) -> String {
    let running = running.map_or("?".to_owned(), |count| count.to_string());
    let nodes = record.nodes + 1;
    format!(
        "{nodes:>5}  {running:<10}  https://127.0.0.1:{}",
        record.port
    )
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
pub fn kubeconfig(common: &Common) -> Result<()> {
    let cluster = Cluster::find(common)?;
    let path = cluster.dir.kubeconfig();
    if !path.is_file() {
        let failure = Failure::new(format!("{}: it is not there yet", path.display()));
        return Err(failure)
            .remedy(|| format!("{} has to come to its end", cluster.dir.command("up")));
    }
    answer(format_args!("{}", path.display()))
}

/// The first process of a node.
pub async fn process(common: &Common, name: &str) -> Result<i32> {
    let cluster = Cluster::find(common)?;
    let (cri, pod) = cluster.pod(name).await?;
    let containers = cri.containers(&pod.id).await?;
    let running = containers.iter().find(|container| container.runs);
    let running = running
        .ok_or_else(|| Failure::new(format!("node {name}: it is stopped")))
        .remedy(|| {
            let start = cluster.dir.command(&format!("start {name}"));
            format!("{start} starts it")
        })?;
    cri.process(&running.id).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_nobody_can_count_are_not_none() {
        let mut record = Record::new("x".parse().unwrap(), 3, 1, "/k".into());
        record.port = 7;
        assert_eq!(
            line(&record, Some(4)),
            "    4  4           https://127.0.0.1:7"
        );
        assert_eq!(
            line(&record, None),
            "    4  ?           https://127.0.0.1:7"
        );
    }
}
