//! `import` brings the images of a containerd to a crispd, without any registry but this program.
//!
//! ```text
//! store    names and blobs, as containerd has them
//! names    which names a kubelet uses
//! whole    which images are all there
//! room     which images crispd's disk takes
//! detour   crispd's settings about registries, which lead here meanwhile
//! told     what came, and what did not
//! mod      the way of an image: not there yet, whole, pulled by its own name
//! ```
//!
//! crispd pulls each image as any other, so that it verifies, unpacks and records it in its own way.
//! crispd is asked first: what it has is its own, however much of it containerd still has.

mod detour;
#[cfg(test)]
mod fake_crispd;
mod names;
mod room;
mod store;
mod told;
mod whole;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::ExitCode;

use crisp_model::ImageRef;
use futures::{StreamExt as _, stream};

use crate::arguments::Import;
use crate::cri::Cri;
use crate::failure::{Context as _, Failure, Remedy as _, Result};
use crate::images::arrival::{self, Known};
use crate::images::{Host, Image, Registry};
use crate::interrupt::interruptible;
use crate::progress::Progress;
use crate::refusal::Refusal;
use detour::Detour;
use names::Names;
use room::Room;
use store::{Named, Store};
use told::{Outcome, plain};
use whole::Why;

/// Images that are pulled at a time.
const SIDE_BY_SIDE: usize = 2;
/// Images that crispd is asked for at a time.
const ASKED: usize = 8;
/// The name by which a crispd says what it is.
const RUNTIME: &str = "crisp";

/// Brings the images of a stopped containerd to a crispd. Fails in the end if any could not be brought that
/// a kubelet may ask for.
pub async fn import(arguments: &Import) -> Result<ExitCode> {
    let progress = Progress::begin();
    let store = Store::open(&arguments.from)?;
    let names = Names::of(store.images(&arguments.namespace)?);
    let cri = crispd(&arguments.socket).await?;
    let detour = Detour::begin(&arguments.registry_config)?;
    let mut outcome = Outcome {
        left: names
            .wrong
            .into_iter()
            .map(|(name, why)| (name, why.into()))
            .collect(),
        useless: names.useless,
        ..Outcome::default()
    };
    let work = Work {
        store: &store,
        cri: &cri,
        detour: &detour,
        progress: &progress,
        moves_tags: arguments.move_tags,
    };
    let done = interruptible("import", work.run(names.wanted, &mut outcome)).await;
    let put_back = detour.end();
    if done.is_ok() || outcome.pulled > 0 {
        progress.done(&outcome.told());
    }
    done.map_err(|failure| failure.or_remedy("once more it goes on: what has come stays"))
        .and(put_back)?;
    Ok(match outcome.is_whole() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// The crispd of a socket, which answers.
async fn crispd(socket: &str) -> Result<Cri> {
    let socket = socket.strip_prefix("unix://").unwrap_or(socket);
    let cri = Cri::at(Path::new(socket), "crispd")?;
    let runtime = cri.runtime().await.remedy(|| {
        format!(
            "nobody answers at {socket}: start it first, as with `systemctl start crispd`; --socket names \
             its socket"
        )
    })?;
    if runtime != RUNTIME {
        let text = format!("{socket}: {} answers there, and no crispd", plain(&runtime));
        return Err(Failure::new(text).remedy("--socket names the socket of the crispd"));
    }
    Ok(cri)
}

/// An import under way.
struct Work<'a> {
    store: &'a Store,
    cri: &'a Cri,
    detour: &'a Detour,
    progress: &'a Progress,
    moves_tags: bool,
}

impl Work<'_> {
    async fn run(&self, wanted: Vec<Named>, outcome: &mut Outcome) -> Result<()> {
        let room = Room::of(self.cri).await;
        let pinned = wanted.iter().filter(|named| named.is_pinned);
        // Its digest and its id are pinned together with a tag.
        let pinned = pinned
            .map(|named| named.name.clone())
            .filter(|name| !name.contains('@'));
        let pinned: Vec<String> = pinned.collect();
        let missing = self.missing(wanted, &room, outcome).await?;
        self.progress.done(&format!(
            "{} names of images read: {} to import, {} are there already",
            outcome.there + outcome.kept.len() + missing.len() + outcome.left.len(),
            missing.len(),
            outcome.there + outcome.kept.len(),
        ));
        if !missing.is_empty() {
            self.bring(&missing, &room, outcome).await?;
        }
        for name in pinned {
            if !outcome.left.contains_key(&name) && !self.cri.is_pinned(&name).await? {
                outcome.unpinned.insert(name);
            }
        }
        Ok(())
    }

    /// The images that crispd has not and containerd's store has all of. Notes the others.
    async fn missing(
        &self,
        wanted: Vec<Named>,
        room: &Room,
        outcome: &mut Outcome,
    ) -> Result<Vec<Image>> {
        let asked = wanted.into_iter().map(async |named| {
            let known = arrival::known(self.cri, &named.name, &named.target.digest).await;
            (named, known)
        });
        let mut asked = stream::iter(asked).buffered(ASKED);
        let mut missing = Vec::new();
        while let Some((named, known)) = asked.next().await {
            let blobs = whole::collect(&named.target, &|digest| self.store.blob(digest));
            let Named { name, target, .. } = named;
            let image = blobs.map(|blobs| Image {
                name: name.clone(),
                digest: target.digest.clone(),
                blobs,
            });
            match known? {
                Known::Same => {
                    outcome.there += 1;
                    image.iter().for_each(|image| room.has(image));
                }
                Known::Other(here) if !self.moves_tags => {
                    let (here, there) = (here.join(", "), target.digest);
                    let why = format!("it leads to {here}, and led to {there} there");
                    outcome.kept.insert(name, why);
                }
                Known::Missing | Known::Other(_) => match image {
                    Ok(image) => missing.push(image),
                    Err(why) => drop(outcome.left.insert(name, why)),
                },
            }
        }
        Ok(missing)
    }

    /// Has crispd pull images from here. Notes which it has then, and which it has not.
    async fn bring(&self, images: &[Image], room: &Room, outcome: &mut Outcome) -> Result<()> {
        let registry = Registry::serve(Ipv4Addr::LOCALHOST.into(), images).await?;
        self.probe(&registry).await?;
        let led = self.lead(&registry, images, outcome);
        let pulls = led
            .iter()
            .map(async |image| (*image, self.pull(image, room).await));
        let mut pulls = stream::iter(pulls).buffer_unordered(SIDE_BY_SIDE);
        let mut tried = 0;
        while let Some((image, pulled)) = pulls.next().await {
            tried += 1;
            let step = format!("{tried}/{}  {}", led.len(), image.name);
            match pulled {
                Ok(()) => {
                    outcome.pulled += 1;
                    self.progress.done(&step);
                }
                Err(failure) if is_gone(&failure) => {
                    return Err(failure.or_remedy("start it, and import again, which goes on"));
                }
                Err(failure) => {
                    let why = failure.to_string();
                    self.progress
                        .done(&format!("{step}: not imported: {}", plain(&why)));
                    outcome.left.insert(image.name.clone(), why.into());
                }
            }
        }
        Ok(())
    }

    async fn pull(&self, image: &Image, room: &Room) -> Result<()> {
        if let Some(why) = room.lacks_for(image) {
            return Err(Failure::new(why));
        }
        arrival::pull(self.cri, "crispd", image).await?;
        room.has(image);
        Ok(())
    }

    /// Leads crispd here for the hosts of images. One whose settings cannot give way keeps its own images
    /// alone behind.
    fn lead<'i>(
        &self,
        registry: &Registry,
        images: &'i [Image],
        outcome: &mut Outcome,
    ) -> Vec<&'i Image> {
        let mut led = Vec::new();
        for (host, images) in by_host(images) {
            match self.detour.lead(&host, &registry.way(&host, Host::Others)) {
                Ok(()) => led.extend(images),
                Err(failure) => {
                    let why = failure.to_string();
                    let left = images
                        .iter()
                        .map(|image| (image.name.clone(), Why::from(why.clone())));
                    outcome.left.extend(left);
                }
            }
        }
        led
    }

    /// Learns whether crispd asks this program at all: else it would ask the world.
    async fn probe(&self, registry: &Registry) -> Result<()> {
        let host = arrival::probe_host("import");
        self.detour.lead(&host, &registry.way(&host, Host::Ours))?;
        let (address, dir) = (registry.address, self.detour.dir().display());
        let asks = arrival::probe(self.cri, registry, &host).await;
        asks.context(|| {
            format!("crispd: it does not ask this program at {address}, as {dir} tells it to")
        })
        .remedy(|| {
            "--registry-config has to name its images.registry_config, and crispd has to be in the same \
             network namespace"
                .to_owned()
        })
    }
}

fn is_gone(failure: &Failure) -> bool {
    failure.cause::<Refusal>().is_some_and(Refusal::is_gone)
}

/// Images by the hosts of their names.
fn by_host(images: &[Image]) -> BTreeMap<String, Vec<&Image>> {
    let mut hosts: BTreeMap<String, Vec<&Image>> = BTreeMap::new();
    for image in images {
        // Names that are none were sorted out before.
        if let Ok(name) = ImageRef::parse(&image.name) {
            hosts.entry(name.host().to_owned()).or_default().push(image);
        }
    }
    hosts
}

#[cfg(test)]
#[path = "import_tests.rs"]
mod tests;
