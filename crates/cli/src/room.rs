//! Room on the disk of clusters, looked at before they are made: kubelets in nodes never evict pods for a full disk,
//! and etcd stops on one.

use std::path::Path;

use rustix::fs::{StatVfs, statvfs};

/// Bytes that a cluster with some images takes.
const BYTES: u64 = 2 << 30;
/// Files that it takes, where the file system counts them.
const FILES: u64 = 50_000;
/// The part of its disk, in percent, that crispd leaves free when it unpacks images
/// (`images.keep_free_percent`).
const KEPT_FREE: u64 = 5;

/// Tells that there is little room below a directory, which need not be there yet.
pub fn warnings(home: &Path) -> Vec<String> {
    let place = home.ancestors().find(|dir| dir.exists());
    // A disk that cannot be looked at shows itself soon.
    let found = place.and_then(|dir| statvfs(dir).ok());
    found.map_or_else(Vec::new, |disk| judge(home, &disk))
}

fn judge(home: &Path, disk: &StatVfs) -> Vec<String> {
    let (free, all) = (disk.f_bavail, disk.f_blocks.max(1));
    let bytes = free.saturating_mul(disk.f_frsize);
    let mut short = Vec::new();
    if bytes < BYTES {
        short.push(format!("{} MiB are free", bytes >> 20));
    }
    let kept = all.saturating_mul(KEPT_FREE) / 100;
    if bytes >= BYTES && free < kept {
        short.push(format!(
            "less than {KEPT_FREE} % are free, and images are unpacked only above that"
        ));
    }
    // Some file systems make inodes as they need them, and tell of none.
    if disk.f_files > 0 && disk.f_favail < FILES {
        short.push(format!("{} more files fit", disk.f_favail));
    }
    let told = short.iter().map(|short| {
        format!(
            "{}: on its file system {short}; no kubelet makes room there: do so, or name another directory by \
             --dir",
            home.display()
        )
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_room_is_told_before_it_is_none() {
        let here = statvfs("/").unwrap();
        let disk = |free: u64, blocks: u64, files: u64| StatVfs {
            f_frsize: 1 << 20,
            f_bavail: free,
            f_blocks: blocks,
            f_files: files.saturating_mul(2),
            f_favail: files,
            ..here
        };
        let told = |disk| judge(Path::new("/srv/x"), &disk);
        assert!(told(disk(4096, 8192, 100_000)).is_empty());
        assert!(
            told(disk(4096, 8192, 0)).is_empty(),
            "no inodes are counted"
        );
        for (disk, word) in [
            (disk(100, 8192, 100_000), "100 MiB are free"),
            (disk(4096, 1 << 20, 100_000), "less than 5 %"),
            (disk(4096, 8192, 10), "10 more files fit"),
        ] {
            let told = told(disk);
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(
                told[0].contains(word) && told[0].contains("--dir"),
                "{told:?}"
            );
        }
        assert!(warnings(Path::new("/no/such/dir")).len() <= 3);
    }
}
