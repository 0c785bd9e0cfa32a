//! `delete` removes a cluster with all that it has; with the last one its daemon goes too.

use std::collections::BTreeMap;
use std::path::Path;

use futures::future::try_join_all;

use crate::arguments::Common;
use crate::cri::Pod;
use crate::daemon::Daemon;
use crate::disk::entries;
use crate::failure::{Context as _, Failure, Result};
use crate::home::Home;
use crate::names::ClusterName;
use crate::network;
use crate::node;
use crate::programs;
use crate::progress::Progress;

/// Removes a cluster. Its record need not be readable.
pub async fn delete(common: &Common) -> Result<()> {
    let progress = Progress::begin();
    let home = Home::at(&common.dir)?;
    if !home.path().exists() {
        return Err(missing(&home, common));
    }
    home.check()?;
    if has_nothing_of(&home, common)? {
        return Err(missing(&home, common));
    }
    let own = home.lock_cluster(&common.name)?;
    let dir = home.cluster(&common.name);
    // Another `delete` may have been at it.
    if has_nothing_of(&home, common)? {
        drop(own);
        home.tidy(&common.name);
        return Err(missing(&home, common));
    }
    drop_old_logs(dir.path());
    // Nodes may run whose cluster's directory was removed by hand.
    if dir.path().exists() || home.daemon().exists() {
        remove_nodes(common, &home, &progress).await?;
    }
    let _decides = home.lock()?;
    let is_last = home.names()?.iter().all(|name| *name == common.name);
    if is_last {
        // Before the directory goes: by that the next `delete` knows that there is something left to do.
        end_daemon(&home, &progress)?;
    }
    home.remove_cluster(&dir)
        .context(|| format!("cluster {}", common.name))?;
    crisp_sys::file::remove_if_there(&home.lock_of(&common.name))
        .context(|| format!("cluster {}: remove its lock", common.name))?;
    if is_last {
        home.remove()?;
        progress.done("no cluster is left: all files removed");
    }
    Ok(())
}

/// Whether a home has nothing to remove for a cluster. A `delete` that was interrupted may have left no
/// cluster, and yet the daemon, some files, or the mark of the home alone: any name then does for the rest.
fn has_nothing_of(home: &Home, common: &Common) -> Result<bool> {
    let is_there = home.cluster(&common.name).path().exists();
    let is_left = home.is_ours()? && (home.names()?.is_empty() || home.has_rest());
    Ok(!is_there && !is_left)
}

/// Removes what logs of nodes had before they were begun anew. A disk that is full has some room then, which a crispd
/// needs to start. All else goes later, where a failure is told.
fn drop_old_logs(cluster: &Path) {
    for node in entries(&cluster.join("nodes")).unwrap_or_default() {
        for log in entries(&node.join("log")).unwrap_or_default() {
            if log.extension().is_some_and(|end| end == "1") && log.is_file() {
                std::fs::remove_file(&log).ok();
            }
        }
    }
}

fn end_daemon(home: &Home, progress: &Progress) -> Result<()> {
    let settings = Daemon::of(home).end()?;
    progress.done(&match settings {
        0 => "crispd for nodes ended".to_owned(),
        count => format!("crispd for nodes ended, {count} settings of the machine given back"),
    });
    Ok(())
}

fn missing(home: &Home, common: &Common) -> Failure {
    let (name, dir) = (&common.name, common.dir.display());
    Failure::new(format!("cluster {name}: it is not in {dir}"))
        .remedy(format!("{} shows those that are", home.command("list")))
}

async fn remove_nodes(common: &Common, home: &Home, progress: &Progress) -> Result<()> {
    let daemon = Daemon::of(home);
    // Only a daemon knows what its pods have outside of this directory.
    {
        let _decides = home.lock()?;
        let network = network::kept_or_new(home)?;
        daemon.ensure(&programs::ours()?, &network).await?;
    }
    let cri = daemon.cri(&format!("cluster {}", common.name))?;
    let mut pods = cri.pods(BTreeMap::new()).await?;
    // Read after the pods: a cluster has its directory before them.
    let others = home.names()?;
    pods.retain(|pod| goes(pod, &common.name, &others));
    try_join_all(pods.iter().map(|pod| cri.remove_pod(&pod.id))).await?;
    progress.done("nodes removed");
    Ok(())
}

/// Whether a pod goes with a cluster: as one of its nodes, or of a cluster that is not there. With the daemon, nobody
/// would know of that one.
fn goes(pod: &Pod, cluster: &ClusterName, all: &[ClusterName]) -> bool {
    let is_of = |name: &ClusterName| node::cluster_of(pod) == name.to_string();
    is_of(cluster) || !all.iter().any(is_of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_go_with_their_cluster_or_without_one() {
        let pod = |cluster: &str| Pod {
            id: "1".to_owned(),
            is_ready: true,
            labels: node::labels(cluster),
        };
        let [x, y] = ["x", "y"].map(|name| name.parse::<ClusterName>().unwrap());
        let all = [x.clone(), y];
        for (of, expected) in [("x", true), ("y", false), ("lost", true)] {
            assert_eq!(goes(&pod(of), &x, &all), expected, "{of}");
        }
    }

    #[test]
    fn a_home_without_clusters_can_be_deleted_and_a_strangers_directory_cannot() {
        let place = tempfile::tempdir().unwrap();
        let common = Common {
            name: "x".parse().unwrap(),
            dir: place.path().join("home"),
        };
        let home = Home::at(&common.dir).unwrap();
        let has_nothing = || has_nothing_of(&home, &common).unwrap();
        assert!(has_nothing());
        crate::disk::make_dir(&home.daemon()).unwrap();
        crate::disk::write(&home.network(), b"").unwrap();
        assert!(has_nothing(), "somebody else's");
        std::fs::remove_dir_all(home.path()).unwrap();
        home.claim().unwrap();
        assert!(!has_nothing(), "a delete was killed, or an up");
        crate::disk::make_dir(home.cluster(&"y".parse().unwrap()).path()).unwrap();
        assert!(has_nothing(), "the daemon is for y");
        crate::disk::make_dir(home.cluster(&common.name).path()).unwrap();
        assert!(!has_nothing());
    }

    #[test]
    fn old_logs_go_first_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        drop_old_logs(place.path());
        let logs = place.path().join("nodes/node-1/log");
        std::fs::create_dir_all(logs.join("pods.1")).unwrap();
        for name in ["kubelet.log", "kubelet.log.1", "x.10"] {
            crate::disk::write(&logs.join(name), b"").unwrap();
        }
        drop_old_logs(place.path());
        let mut left = entries(&logs).unwrap();
        left.sort();
        let names = ["kubelet.log", "pods.1", "x.10"].map(|name| logs.join(name));
        assert_eq!(left, names);
    }

    #[tokio::test]
    async fn files_of_others_outlive_a_delete() {
        let place = tempfile::tempdir().unwrap();
        let common = Common {
            name: "x".parse().unwrap(),
            dir: place.path().to_owned(),
        };
        let files =
            ["daemon/mine", "clusters/My_Cluster/data", "lock"].map(|file| place.path().join(file));
        for file in &files {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            crate::disk::write(file, b"mine").unwrap();
        }
        let refused = delete(&common).await.unwrap_err().to_string();
        assert!(refused.contains("no directory of clusters"), "{refused}");
        assert!(files.iter().all(|file| file.is_file()));
    }
}
