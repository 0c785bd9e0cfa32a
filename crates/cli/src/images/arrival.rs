//! The way of an image from this program to a crispd, and the look whether it was that one which came. A
//! mirror that fails is passed by for the registry of the world, and a pull that a kubelet began before is
//! joined by ours: a pull that succeeds says nothing about whose image it was.

use std::time::Duration;

use super::{Image, Registry};
use crate::cri::{Cri, PULLING};
use crate::failure::{Failure, Remedy as _, Result};
use crate::refusal::Refusal;

/// How often a pull is tried: pulls of a kubelet may be in the way of the first ones.
const TRIES: u8 = 4;
const PAUSE: Duration = Duration::from_millis(500);
/// A domain that no network knows, below which this program learns whether a crispd asks it.
const PROBE: &str = "probe.crisp.internal";
/// How long a crispd may take to ask.
const PROBING: Duration = Duration::from_secs(30);
/// Bytes that the slowest disk unpacks in a second.
const SLOWEST: u64 = 1 << 20;

/// The host of which a crispd is to ask this program; each has its own.
pub fn probe_host(whose: &str) -> String {
    format!("{whose}.{PROBE}")
}

/// Makes sure that a crispd that was led here for its [`probe_host`] asks this program at all: else it would
/// ask the world. Its own words are the error.
pub async fn probe(cri: &Cri, registry: &Registry, host: &str) -> std::result::Result<(), String> {
    let name = format!("{host}/probe:1");
    // The image is not there: the question is what counts.
    let answer = cri.pull_within(&name, PROBING).await;
    match (registry.is_asked_for(host), answer) {
        (true, _) => Ok(()),
        (false, Ok(())) => Err(format!("another registry has given it {name}")),
        (false, Err(failure)) => Err(failure.to_string()),
    }
}

/// The image that a crispd has under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// Nothing.
    Missing,
    /// The image of that digest.
    Same,
    /// Another image, with its digests as `HOST/REPOSITORY@DIGEST`.
    Other(Vec<String>),
}

impl Known {
    fn of(digests: Option<Vec<String>>, digest: &str) -> Self {
        match digests {
            None => Self::Missing,
            Some(digests) if has(&digests, digest) => Self::Same,
            Some(digests) => Self::Other(digests),
        }
    }
}

/// Learns what a crispd has under a name that is to be of a digest.
pub async fn known(cri: &Cri, name: &str, digest: &str) -> Result<Known> {
    Ok(Known::of(cri.image_digests(name).await?, digest))
}

fn has(digests: &[String], digest: &str) -> bool {
    let end = format!("@{digest}");
    digests.iter().any(|known| known.ends_with(&end))
}

/// How long the pull of an image may take: the longest ones are unpacked for hours on a slow disk.
fn deadline(image: &Image) -> Duration {
    PULLING + Duration::from_secs(image.size() / SLOWEST)
}

/// Has a crispd pull an image that this program serves, until it has this one.
pub async fn pull(cri: &Cri, whose: &str, image: &Image) -> Result<()> {
    let pull = async || cri.pull_within(&image.name, deadline(image)).await;
    let digests = async || Ok(cri.image_digests(&image.name).await?.unwrap_or_default());
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
        if has(&came, &image.digest) {
            return Ok(());
        }
        let is_final = |failure: &Failure| {
            let refusal = failure.cause::<Refusal>();
            refusal.is_some_and(|refusal| !refusal.may_pass())
        };
        if tried == TRIES || pulled.as_ref().is_err_and(is_final) {
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

    use tonic::{Code, Status};

    use super::*;
    use crate::failure::Context as _;
    use crate::images::{Blob, Content};

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

    /// A pull that took all its time took it from the others, and would do so again.
    #[tokio::test]
    async fn a_pull_is_not_tried_again_where_its_code_says_that_it_is_of_no_use() {
        for (code, tries) in [
            (Code::FailedPrecondition, 1),
            (Code::DeadlineExceeded, 1),
            (Code::Unavailable, TRIES),
        ] {
            let pulls = Cell::new(0);
            let pull = async || {
                pulls.set(pulls.get() + 1);
                Err::<(), _>(Refusal::from(Status::new(code, "no"))).context(|| "crispd".to_owned())
            };
            let digests = async || Ok(Vec::new());
            let outcome = until_there("crispd", &image(), pull, digests).await;
            assert_eq!(outcome.unwrap_err().to_string(), "crispd: no");
            assert_eq!(pulls.get(), tries, "{code:?}");
        }
    }

    #[test]
    fn a_name_of_another_image_is_not_one_that_is_missing() {
        let digests = |digest: &str| Some(vec![format!("a.example/x@{digest}")]);
        for (digests, expected) in [
            (None, Known::Missing),
            (digests("sha256:ours"), Known::Same),
            (
                digests("sha256:theirs"),
                Known::Other(digests("sha256:theirs").unwrap()),
            ),
            (Some(Vec::new()), Known::Other(Vec::new())),
        ] {
            assert_eq!(Known::of(digests, "sha256:ours"), expected);
        }
    }

    #[test]
    fn a_long_image_has_a_long_time() {
        assert_eq!(deadline(&image()), PULLING);
        let blob = Blob {
            digest: "sha256:x".to_owned(),
            media_type: String::new(),
            content: Content::Part {
                path: "/x".into(),
                offset: 0,
                size: 20 << 30,
            },
        };
        let mut long = image();
        long.blobs = vec![blob];
        let hours = deadline(&long).as_secs() / 3600;
        assert_eq!(hours, 6);
    }
}
