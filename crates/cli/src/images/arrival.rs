//! The way of an image from this program to a crispd, and the look whether it was that one which came. A
//! mirror that fails is passed by for the registry of the world, and a pull that a kubelet began before is
//! joined by ours: a pull that succeeds says nothing about whose image it was.

use std::time::Duration;

use super::{Image, Registry};
use crate::cri::Cri;
use crate::failure::{Failure, Remedy as _, Result};

/// How often a pull is tried: pulls of a kubelet may be in the way of the first ones.
const TRIES: u8 = 4;
const PAUSE: Duration = Duration::from_millis(500);
/// A domain that no network knows, below which this program learns whether a crispd asks it.
const PROBE: &str = "probe.crisp.internal";
/// How long a crispd may take to ask.
const PROBING: Duration = Duration::from_secs(30);

/// The host of which a crispd is to ask this program; each has its own.
pub fn probe_host(whose: &str) -> String {
    format!("{whose}.{PROBE}")
}

/// Whether a crispd that was led here for its [`probe_host`] asks this program at all: else it would ask the
/// world.
pub async fn asks(cri: &Cri, registry: &Registry, host: &str) -> bool {
    let name = format!("{host}/probe:1");
    // The image is not there: the question is what counts.
    drop(tokio::time::timeout(PROBING, cri.pull(&name)).await);
    registry.is_asked_for(host)
}

/// Whether a crispd has this image under its name, and no other one.
pub async fn is_there(cri: &Cri, image: &Image) -> Result<bool> {
    let digests = cri.image_digests(&image.name).await?;
    Ok(has(&digests, image))
}

fn has(digests: &[String], image: &Image) -> bool {
    let end = format!("@{}", image.digest);
    digests.iter().any(|known| known.ends_with(&end))
}

/// Has a crispd pull an image that this program serves, until it has this one.
pub async fn pull(cri: &Cri, whose: &str, image: &Image) -> Result<()> {
    let pull = async || cri.pull(&image.name).await;
    let digests = async || cri.image_digests(&image.name).await;
    until_there(whose, image, pull, digests).await
}

async fn until_there(
    whose: &str,
    image: &Image,
    pull: impl AsyncFn() -> Result<()>,
    digests: impl AsyncFn() -> Result<Vec<String>>,
) -> Result<()> {
    for tried in 1.. {
        let pulled = pull().await;
        let came = match &pulled {
            Ok(()) => digests().await?,
            Err(_) => Vec::new(),
        };
        if has(&came, image) {
            return Ok(());
        }
        if tried == TRIES {
            pulled?;
            return Err(other_came(whose, image, &came)).remedy(|| {
                "its crispd asked another registry: that one's image is under this name now; try again, \
                 or give the image a name that no registry has"
                    .to_owned()
            });
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

fn other_came(whose: &str, image: &Image, came: &[String]) -> Failure {
    let came = match came {
        [] => "none".to_owned(),
        came => came.join(", "),
    };
    Failure::new(format!(
        "{whose}: image {}: {} was to come, and {came} came",
        image.name, image.digest
    ))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn image() -> Image {
        Image {
            name: "docker.io/my/image:1".to_owned(),
            digest: "sha256:ours".to_owned(),
            blobs: Vec::new(),
        }
    }

    /// The outcome where the pull of each number brings this digest, and how many there were.
    async fn outcome(brings: impl Fn(u8) -> Option<&'static str>) -> (Result<()>, u8) {
        let pulls = Cell::new(0);
        let pull = async || {
            pulls.set(pulls.get() + 1);
            brings(pulls.get())
                .map(drop)
                .ok_or_else(|| Failure::new("disk full"))
        };
        let digests = async || {
            let digest = brings(pulls.get()).unwrap();
            Ok(vec![format!("docker.io/my/image@{digest}")])
        };
        let outcome = until_there("node node-1", &image(), pull, digests).await;
        (outcome, pulls.get())
    }

    #[tokio::test]
    async fn an_image_of_others_is_no_arrival() {
        let of_a_kubelet = |pull| match pull {
            1 => Some("sha256:theirs"),
            2 => None,
            _ => Some("sha256:ours"),
        };
        let (ours, second, theirs, none) = futures::join!(
            outcome(|_| Some("sha256:ours")),
            outcome(of_a_kubelet),
            outcome(|_| Some("sha256:theirs")),
            outcome(|_| None),
        );
        assert!(ours.0.is_ok() && ours.1 == 1);
        assert!(second.0.is_ok() && second.1 == 3);
        let text = theirs.0.unwrap_err().to_string();
        for part in ["node node-1", "my/image:1", "sha256:ours", "sha256:theirs"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(theirs.1, TRIES);
        assert_eq!(none.0.unwrap_err().to_string(), "disk full");
    }
}
