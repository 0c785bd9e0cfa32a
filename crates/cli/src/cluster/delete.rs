//! `delete` removes a cluster with all that it has; with the last one its daemon goes too.

use futures::future::try_join_all;

use crate::arguments::Common;
use crate::daemon::Daemon;
use crate::failure::{Context as _, Failure, Result};
use crate::home::Home;
use crate::node;
use crate::programs;
use crate::progress::Progress;

/// Removes a cluster. Its record need not be readable.
pub async fn delete(common: &Common) -> Result<()> {
    let progress = Progress::begin();
    let home = Home::at(&common.dir)?;
    let missing = || {
        let text = format!(
            "cluster {}: it is not in {}",
            common.name,
            common.dir.display()
        );
        Failure::new(text).remedy("`crisp cluster list` shows those that are")
    };
    if !home.cluster(&common.name).path().exists() {
        return Err(missing());
    }
    let _lock = home.lock()?;
    let dir = home.cluster(&common.name);
    let daemon = Daemon::of(&home);
    // Only a daemon knows what its pods have outside of this directory.
    daemon.ensure(&programs::ours()?).await?;
    let cri = daemon.cri(&format!("cluster {}", common.name))?;
    let pods = cri.pods(node::labels(&common.name.to_string())).await?;
    try_join_all(pods.iter().map(|pod| cri.remove_pod(&pod.id))).await?;
    progress.done("nodes removed");
    crisp_sys::file::remove_tree_if_there(dir.path())
        .context(|| format!("cluster {}: remove {}", common.name, dir.path().display()))?;
    if home.names()?.is_empty() {
        daemon.end()?;
        home.remove()?;
        progress.done("no cluster is left: crispd for nodes ended, its files removed");
    }
    Ok(())
}
