//! `import` brings the images of a containerd to a crispd, without any registry but this program.
//!
//! ```text
//! store    names and blobs, as containerd has them
//! whole    which images are all there
//! detour   crispd's settings about registries, which lead here meanwhile
//! mod      the way of an image: whole, not there yet, pulled by its own name
//! ```
//!
//! crispd pulls each image as any other, so that it verifies, unpacks and records it in its own way.

mod detour;
mod store;
mod whole;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::ExitCode;

use crisp_model::ImageRef;
use futures::{StreamExt as _, stream};

use crate::arguments::Import;
use crate::cri::Cri;
use crate::failure::{Context as _, Failure, Remedy as _, Result};
use crate::images::arrival::{self, Known};
use crate::images::{Blob, Host, Image, Registry};
use crate::interrupt::interruptible;
use crate::progress::Progress;
use detour::Detour;
use store::{Named, Store};
use whole::Why;

/// Images that are pulled at a time.
const SIDE_BY_SIDE: usize = 2;
/// The name by which a crispd says what it is.
const RUNTIME: &str = "crisp";

/// Names of images that are not imported, each with the reason.
type Left = BTreeMap<String, Why>;

/// Brings the images of a stopped containerd to a crispd. Fails in the end if any could not be brought.
pub async fn import(arguments: &Import) -> Result<ExitCode> {
    let progress = Progress::begin();
    let store = Store::open(&arguments.from)?;
    let named = store.images(&arguments.namespace)?;
    let socket = arguments.socket.strip_prefix("unix://");
    let socket = socket.unwrap_or(&arguments.socket);
    let cri = Cri::at(Path::new(socket), "crispd")?;
    let runtime = cri.runtime().await.remedy(|| {
        format!(
            "nobody answers at {socket}: start it first, as with `systemctl start crispd`; --socket names \
             its socket"
        )
    })?;
    if runtime != RUNTIME {
        let text = format!("{socket}: {runtime:?} answers there, and no crispd");
        return Err(Failure::new(text).remedy("--socket names the socket of the crispd"));
    }
    let (whole, mut left) = sort(named, |named| {
        whole::collect(&named.target, &|digest| store.blob(digest))
    });
    let detour = Detour::begin(&arguments.registry_config)?;
    let (there, missing) = known(&cri, whole).await?;
    progress.done(&format!(
        "{} names of images read: {} to import, {there} are there already",
        there + missing.len() + left.len(),
        missing.len()
    ));
    let pulled = match missing.is_empty() {
        true => 0,
        false => {
            let step = bring(&cri, &detour, &missing, &mut left, &progress);
            interruptible("import", step).await?
        }
    };
    detour.end()?;
    progress.done(&told(pulled, there, &left));
    Ok(match left.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Images that are whole, and those that stay behind.
fn sort(
    named: Vec<Named>,
    collect: impl Fn(&Named) -> std::result::Result<Vec<Blob>, Why>,
) -> (Vec<Image>, Left) {
    let (mut whole, mut left) = (Vec::new(), Left::new());
    // An id is no name that anything is pulled by: it comes with the image's other names.
    let (ids, named): (Vec<Named>, Vec<Named>) = named
        .into_iter()
        .partition(|named| named.name.starts_with("sha256:"));
    let others: BTreeSet<String> = named.iter().map(|it| it.target.digest.clone()).collect();
    for named in named {
        let outcome = match ImageRef::parse(&named.name) {
            Ok(name) if name.to_string() == named.name => collect(&named),
            Ok(name) => Err(format!("a kubelet never finds it: it asks for {name}").into()),
            Err(error) => Err(error.to_string().into()),
        };
        match outcome {
            Ok(blobs) => whole.push(Image {
                name: named.name,
                digest: named.target.digest,
                blobs,
            }),
            Err(why) => drop(left.insert(named.name, why)),
        }
    }
    for id in ids {
        if !others.contains(&id.target.digest) {
            left.insert(id.name, "it has no name but its id".to_owned().into());
        }
    }
    (whole, left)
}

/// How many are there already, and those that are not.
async fn known(cri: &Cri, images: Vec<Image>) -> Result<(usize, Vec<Image>)> {
    let (mut there, mut missing) = (0, Vec::new());
    for image in images {
        match arrival::known(cri, &image.name, &image.digest).await? {
            Known::Same => there += 1,
            Known::Missing | Known::Other(_) => missing.push(image),
        }
    }
    Ok((there, missing))
}

/// Has crispd pull images from here. Tells how many it has then, and adds those that it has not.
async fn bring(
    cri: &Cri,
    detour: &Detour,
    images: &[Image],
    left: &mut Left,
    progress: &Progress,
) -> Result<usize> {
    let registry = Registry::serve(Ipv4Addr::LOCALHOST.into(), images).await?;
    probe(cri, &registry, detour).await?;
    let names = images
        .iter()
        .filter_map(|image| ImageRef::parse(&image.name).ok());
    let hosts: BTreeSet<String> = names.map(|name| name.host().to_owned()).collect();
    for host in hosts {
        detour.lead(&host, &registry.way(&host, Host::Others))?;
    }
    let pulls = images
        .iter()
        .map(async |image| (image, arrival::pull(cri, "crispd", image).await));
    let mut pulls = stream::iter(pulls).buffer_unordered(SIDE_BY_SIDE);
    let mut pulled = 0;
    while let Some((image, outcome)) = pulls.next().await {
        match outcome {
            Ok(()) => {
                pulled += 1;
                progress.done(&format!("{}/{}  {}", pulled, images.len(), image.name));
            }
            Err(failure) => drop(left.insert(image.name.clone(), failure.to_string().into())),
        }
    }
    Ok(pulled)
}

/// Learns whether crispd asks this program at all: else it would ask the world.
async fn probe(cri: &Cri, registry: &Registry, detour: &Detour) -> Result<()> {
    let host = arrival::probe_host("import");
    detour.lead(&host, &registry.way(&host, Host::Ours))?;
    let (address, dir) = (registry.address, detour.dir().display());
    let asks = arrival::probe(cri, registry, &host).await;
    asks.context(|| format!("crispd: it does not ask this program at {address}, as {dir} tells it to"))
        .remedy(|| {
            "--registry-config has to name its images.registry_config, and crispd has to be in the same \
             network namespace"
                .to_owned()
        })
}

fn told(pulled: usize, there: usize, left: &Left) -> String {
    let mut text = format!("{pulled} imported, {there} were there already");
    if left.is_empty() {
        return text;
    }
    text.push_str(&format!(
        ", {} not imported; those are pulled from their registries when a pod needs them:",
        left.len()
    ));
    for (name, why) in left {
        text.push_str(&format!("\n          {name}: {why}"));
    }
    if left.values().any(|why| matches!(why, Why::Layers { .. })) {
        text.push_str(
            "\n          containerd keeps no layers that it has unpacked where its configuration says \
             discard_unpacked_layers = true",
        );
    }
    text
}

#[cfg(test)]
#[path = "import_tests.rs"]
mod tests;
