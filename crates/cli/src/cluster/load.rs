//! `load` brings images to all nodes of a cluster, so that pods of any node start without a registry.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crisp_model::ImageRef;
use futures::future::try_join_all;

use super::conditions::through_firewalls;
use super::found::Cluster;
use super::redirects::Redirects;
use crate::advice;
use crate::arguments::Common;
use crate::cri::Cri;
use crate::failure::{Context as _, Failure, Remedy as _, Result};
use crate::images::{Archive, Host, Image, Registry, arrival};
use crate::interrupt::interruptible;
use crate::progress::Progress;

/// How names of archives end, also of such as have to be unpacked first.
const ENDS: [&str; 8] = [
    ".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.xz", ".txz", ".tar.bz2",
];
const IRREGULAR: &str = "an archive has to be a regular file";
const SAVE: &str = "`docker save -o image.tar NAME` writes one";
const NAMED: &str = "an image of a registry is named as docker.io/library/NAME:TAG";

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

/// Whether a name is that of an archive, whose file is read more than once. A name that can only be meant as one is
/// not looked for at registries.
fn is_archive(image: &str, name: Option<&str>) -> Result<bool> {
    let path = Path::new(image);
    let is_meant = is_meant_as_file(image, name);
    let (why, remedy) = match fs::metadata(path) {
        Ok(data) if data.is_file() => return Ok(true),
        Ok(data) if data.is_dir() => match is_meant || is_layout(path) {
            true => ("it is a directory", pack(image)),
            false => return Ok(false),
        },
        Ok(_) => (IRREGULAR, SAVE.to_owned()),
        Err(_) if image == "-" => (IRREGULAR, SAVE.to_owned()),
        Err(_) if is_meant => ("there is no such archive", NAMED.to_owned()),
        Err(_) => return Ok(false),
    };
    Err(Failure::new(format!("{image}: {why}")).remedy(remedy))
}

fn pack(dir: &str) -> String {
    let dir = advice::quoted(dir);
    format!("`tar -C {dir} -cf image.tar .` makes an archive of an OCI layout")
}

/// Whether a directory is what an archive of an OCI layout is packed from.
fn is_layout(dir: &Path) -> bool {
    dir.join("oci-layout").is_file()
}

fn is_meant_as_file(image: &str, name: Option<&str>) -> bool {
    let lower = image.to_ascii_lowercase();
    let beside = Path::new(image).parent();
    let beside = beside.filter(|dir| !dir.as_os_str().is_empty());
    image.starts_with(['/', '.'])
        || ENDS.iter().any(|end| lower.ends_with(end))
        || beside.is_some_and(Path::is_dir)
        || name.is_some()
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
    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;
    use crate::disk::{make_dir, write};

    #[test]
    fn what_can_only_be_a_file_is_not_pulled() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let [file, plain, layout] = ["image", "plain", "a layout"].map(path);
        write(Path::new(&file), b"").unwrap();
        make_dir(Path::new(&plain)).unwrap();
        make_dir(Path::new(&layout)).unwrap();
        write(&Path::new(&layout).join("oci-layout"), b"{}").unwrap();
        let packed = format!("`tar -C '{layout}' -cf image.tar .`");
        // As a shell's `<(docker save NAME)` is one.
        let pipe = path("pipe");
        mkfifoat(CWD, &pipe, Mode::RUSR).unwrap();
        for (image, name, expected) in [
            (file.as_str(), None, Ok(true)),
            (&file, Some("a:1"), Ok(true)),
            ("web", None, Ok(false)),
            ("docker.io/library/web:1", None, Ok(false)),
            ("web@sha256:0", None, Ok(false)),
            ("web.target/x", None, Ok(false)),
            // A directory of this package, which is no layout.
            ("src", None, Ok(false)),
            ("images/web.tar", None, Err("no such archive")),
            ("web.TAR", None, Err("no such archive")),
            ("web.tar.gz", None, Err("no such archive")),
            ("web.tgz", None, Err("no such archive")),
            ("web.tar.zst", None, Err("no such archive")),
            ("./web", None, Err("no such archive")),
            (&path("x"), None, Err("no such archive")),
            ("src/x", None, Err("no such archive")),
            ("web", Some("a:1"), Err("no such archive")),
            (&plain, None, Err("it is a directory")),
            (&layout, None, Err(&packed)),
            ("src", Some("a:1"), Err("it is a directory")),
            (&pipe, None, Err("regular file; `docker save -o")),
            ("/dev/null", None, Err("regular file; `docker save -o")),
            ("-", None, Err("regular file; `docker save -o")),
        ] {
            match (is_archive(image, name), expected) {
                (Ok(is), Ok(expected)) => assert_eq!(is, expected, "{image}"),
                (Err(refused), Err(why)) => {
                    let refused = refused.to_string();
                    assert!(refused.contains(why), "{image}: {refused}");
                }
                (other, _) => panic!("{image}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_layout_is_no_image_where_its_name_could_be_one() {
        let named = tempfile::Builder::new().prefix("layout-").tempdir_in(".");
        let named = named.unwrap();
        let image = named.path().file_name().unwrap().to_str().unwrap();
        assert!(!is_archive(image, None).unwrap());
        write(&named.path().join("oci-layout"), b"{}").unwrap();
        let refused = is_archive(image, None).unwrap_err().to_string();
        assert!(refused.contains("tar -C"), "{refused}");
    }
}
