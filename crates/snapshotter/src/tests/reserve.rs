//! A layer that would fill the disk, on a small disk of its own.

use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use crisp_sys::mount::{Depth, FsContext, MountAttributes, Propagation};

use super::maker::{chain, dir, file, tar};
use crate::{Compression, Error, Reserve, Snapshotter};

/// Runs `work` in a directory that is a disk of 64 MiB and 20,000 inodes.
fn on_a_small_disk(work: impl FnOnce(&Path) + Send) {
    std::thread::scope(|scope| {
        let done = scope.spawn(|| {
            crisp_sys::fork::unshare(crisp_sys::fork::CloneFlags::NEWNS).unwrap();
            let root = Path::new("/");
            crisp_sys::mount::set_propagation(root, Propagation::Private, Depth::Recursive)
                .unwrap();
            let context = FsContext::open("tmpfs").unwrap();
            let context = context.set("size", "64m").unwrap();
            let context = context.set("nr_inodes", "20000").unwrap();
            let disk = context.mount(MountAttributes::default()).unwrap();
            let dir = tempfile::tempdir().unwrap();
            let target = crisp_sys::rootfs::open_root(dir.path()).unwrap();
            crisp_sys::mount::attach(disk.as_fd(), target.as_fd()).unwrap();
            work(dir.path());
            crisp_sys::mount::unmount(dir.path()).unwrap();
        });
        done.join().unwrap();
    });
}

/// 512 MiB of zeros, in half a megabyte.
fn bomb() -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_path("zeros").unwrap();
    header.set_size(512 << 20);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(header.as_bytes()).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..512 {
        encoder.write_all(&zeros).unwrap();
    }
    encoder.write_all(&zeros[..1024]).unwrap();
    encoder.finish().unwrap()
}

fn free(root: &Path) -> u64 {
    let disk = rustix::fs::statvfs(root).unwrap();
    (disk.f_bavail * disk.f_frsize) >> 20
}

/// Waits until what was unpacked is gone: a process that another test forks in this moment has a
/// copy of its descriptors until it becomes another program.
fn comes_back(root: &Path, what: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while free(root) <= 60 {
        assert!(Instant::now() < deadline, "{what}: what was unpacked stays");
        std::thread::yield_now();
    }
}

#[test]
fn privileged_a_bomb_leaves_the_reserve() {
    on_a_small_disk(|root| {
        let store = Snapshotter::open(&root.join("snapshots")).unwrap();
        let store = store.with_reserve(Reserve::percent(50));
        let unpack = |blob: &[u8]| {
            let writer = store.begin_layer(&chain(1)).unwrap();
            let unpacked = writer.unpack(Compression::Detect, blob);
            unpacked.map(drop)
        };
        let many: Vec<_> = (0..15_000).map(|n| dir(&n.to_string())).collect();
        for (what, blob) in [("bytes", bomb()), ("inodes", tar(many))] {
            let error = unpack(&blob).unwrap_err();
            assert!(matches!(error, Error::Full { .. }), "{what}: {error}");
            let text = error.to_string();
            assert!(text.contains("images.keep_free_percent"), "{text}");
            comes_back(root, what);
            unpack(&tar(vec![file("a", "x")])).unwrap();
        }
    });
}
