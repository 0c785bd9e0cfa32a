//! Room on crispd's disk. An image takes more than its blobs have bytes, since they are compressed: one
//! whose blobs alone do not fit is not begun, or the disk would be filled up to its reserve each time.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::cri::Cri;
use crate::images::Image;

/// The disk of a crispd, and the blobs of which it has the content.
#[derive(Debug, Default)]
pub struct Room {
    /// None where it is not to be seen from here.
    dir: Option<PathBuf>,
    had: RefCell<BTreeSet<String>>,
}

impl Room {
    /// The room of a crispd.
    pub async fn of(cri: &Cri) -> Self {
        let dir = cri.images_dir().await.ok().flatten();
        Self {
            // It may see the disk by another path.
            dir: dir.filter(|dir| dir.is_dir()),
            had: RefCell::default(),
        }
    }

    /// Notes that it has an image.
    pub fn has(&self, image: &Image) {
        let digests = image.blobs.iter().map(|blob| blob.digest.clone());
        self.had.borrow_mut().extend(digests);
    }

    /// Why there is no room for an image, as far as that can be known.
    pub fn lacks_for(&self, image: &Image) -> Option<String> {
        let dir = self.dir.as_ref()?;
        let disk = rustix::fs::statvfs(dir).ok()?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let needs = self.needs(image);
        (needs > free).then(|| {
            let (needs, free) = (amount(needs), amount(free));
            format!(
                "it needs more than {needs}, and {} has {free} free",
                dir.display()
            )
        })
    }

    /// Bytes of the blobs that are not there yet.
    fn needs(&self, image: &Image) -> u64 {
        let had = self.had.borrow();
        let new = image
            .blobs
            .iter()
            .filter(|blob| !had.contains(&blob.digest));
        new.fold(0, |sum, blob| sum.saturating_add(blob.content.size()))
    }
}

/// A number of bytes as people read it.
pub fn amount(bytes: u64) -> String {
    const UNITS: [&str; 3] = ["KiB", "MiB", "GiB"];
    let (mut whole, mut tenths, mut unit) = (bytes, 0, "bytes");
    for next in UNITS {
        if whole < 1024 {
            break;
        }
        (tenths, whole, unit) = (whole % 1024 * 10 / 1024, whole / 1024, next);
    }
    match unit {
        "bytes" => format!("{whole} bytes"),
        unit => format!("{whole}.{tenths} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::{Blob, Content};

    fn image(blobs: &[(&str, u64)]) -> Image {
        let blobs = blobs.iter().map(|(digest, size)| Blob {
            digest: (*digest).to_owned(),
            media_type: String::new(),
            content: Content::Part {
                path: "/x".into(),
                offset: 0,
                size: *size,
            },
        });
        Image {
            name: "a.example/x:1".to_owned(),
            digest: "sha256:x".to_owned(),
            blobs: blobs.collect(),
        }
    }

    #[test]
    fn an_image_that_no_disk_takes_is_told_with_both_figures() {
        let dir = tempfile::tempdir().unwrap();
        let room = Room {
            dir: Some(dir.path().to_owned()),
            had: RefCell::default(),
        };
        let long = image(&[("a", 1 << 60), ("b", 10)]);
        let told = room.lacks_for(&long).unwrap();
        assert!(
            told.contains("1073741824.0 GiB") && told.contains(" free"),
            "{told}"
        );
        // A layer that another image has brought is there.
        room.has(&image(&[("a", 1 << 60)]));
        assert_eq!((room.needs(&long), room.lacks_for(&long)), (10, None));
        assert_eq!(Room::default().lacks_for(&image(&[("c", u64::MAX)])), None);
    }

    #[test]
    fn amounts_are_read_by_people() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1.0 KiB"),
            (1_600_000, "1.5 MiB"),
            (5 << 30, "5.0 GiB"),
        ] {
            assert_eq!(amount(bytes), text);
        }
    }
}
