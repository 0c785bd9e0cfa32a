//! A disk without room: each step of a pull and of a container's snapshot answers that it is full,
//! names the path, and leaves nothing behind; removing images goes on.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crisp_image::{Error, Images};
use crisp_sys::mount::{Depth, FsContext, MountAttributes, Propagation};

use crate::maker::{Image, Packing, image, simple, tar};
use crate::{Registry, container, names, open};

/// Runs `work` in a directory that is a disk of 2 MiB and 200 inodes.
fn on_a_small_disk<F: Future<Output = ()>>(work: impl FnOnce(PathBuf) -> F + Send) {
    std::thread::scope(|scope| {
        let done = scope.spawn(|| {
            crisp_sys::fork::unshare(crisp_sys::fork::CloneFlags::NEWNS).unwrap();
            let root = Path::new("/");
            crisp_sys::mount::set_propagation(root, Propagation::Private, Depth::Recursive)
                .unwrap();
            let context = FsContext::open("tmpfs").unwrap();
            let context = context.set("size", "2m").unwrap();
            let context = context.set("nr_inodes", "200").unwrap();
            let disk = context.mount(MountAttributes::default()).unwrap();
            let dir = tempfile::tempdir().unwrap();
            let target = crisp_sys::rootfs::open_root(dir.path()).unwrap();
            crisp_sys::mount::attach(disk.as_fd(), target.as_fd()).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(work(dir.path().to_owned()));
            drop(runtime);
            crisp_sys::mount::unmount(dir.path()).unwrap();
        });
        done.join().unwrap();
    });
}

/// A resource of a disk, and the way to use it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    Pages,
    Inodes,
}

impl Room {
    fn free(self, root: &Path) -> u64 {
        let disk = rustix::fs::statvfs(root).unwrap();
        match self {
            Self::Pages => disk.f_bavail,
            Self::Inodes => disk.f_favail,
        }
    }

    /// Takes all but `left` of it.
    fn leave(self, root: &Path, left: u64) {
        self.give_back(root);
        let ballast = root.join("ballast");
        fs::create_dir(&ballast).unwrap();
        match self {
            Self::Pages => {
                let mut file = File::create(ballast.join("0")).unwrap();
                while self.free(root) > left {
                    file.write_all(&[7; 4096]).unwrap();
                }
            }
            Self::Inodes => {
                for number in left..self.free(root) {
                    File::create(ballast.join(number.to_string())).unwrap();
                }
            }
        }
        assert_eq!(self.free(root), left);
    }

    fn give_back(self, root: &Path) {
        drop(fs::remove_dir_all(root.join("ballast")));
    }
}

/// Waits until as much is free as was left: trees go in the background.
async fn settles(room: Room, root: &Path, left: u64, step: &str) {
    for _ in 0..500 {
        if room.free(root) == left {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let now = room.free(root);
    panic!("{step}: {left} {room:?} were left, and {now} are");
}

fn check(error: &Error, root: &Path, step: &str) {
    assert!(error.is_full_disk(), "{step}: {error:?}");
    let (text, root) = (error.to_string(), root.to_str().unwrap());
    assert!(text.contains(root), "{step}: {text}");
}

/// Runs an act with more and more room until it succeeds. Answers how often it failed.
async fn until_it_fits(room: Room, root: &Path, act: impl AsyncFn() -> Result<(), Error>) -> u64 {
    for left in 0..60 {
        room.leave(root, left);
        let step = format!("with {left} {room:?}");
        match act().await {
            Ok(()) => return left,
            Err(error) => check(&error, root, &step),
        }
        settles(room, root, left, &step).await;
    }
    panic!("60 {room:?} are too few");
}

async fn pulls(room: Room, root: PathBuf, made: Image) {
    let registry = Registry::start().await;
    let name = registry.push(&made, "a/b:t");
    // The store's own directories are there before the disk is full.
    let images = open(&root);
    let pull = async || images.pull(&name, None).await.map(drop);
    let failed = until_it_fits(room, &root, pull).await;
    assert!(failed > 3, "{failed}");
    room.leave(&root, 0);
    images.remove(&name).await.unwrap();
    assert_eq!(images.list(), []);
    for _ in 0..500 {
        if room.free(&root) > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("nothing was freed");
}

#[test]
fn privileged_pulls_tell_of_a_disk_without_pages() {
    on_a_small_disk(|root| pulls(Room::Pages, root, simple("x")));
}

#[test]
fn privileged_pulls_tell_of_a_disk_without_inodes() {
    on_a_small_disk(|root| pulls(Room::Inodes, root, simple("x")));
}

#[test]
fn privileged_a_layer_larger_than_the_disk_leaves_nothing() {
    on_a_small_disk(async |root| {
        let registry = Registry::start().await;
        let large = (Packing::Gzip, tar(&[("a", &"x".repeat(3 << 20))]));
        let name = registry.push(&image(&[large]), "a/b:t");
        let images = open(&root);
        let free = Room::Pages.free(&root);
        let error = images.pull(&name, None).await.unwrap_err();
        check(&error, &root, "a large layer");
        settles(Room::Pages, &root, free, "a large layer").await;
    });
}

async fn snapshots(room: Room, root: PathBuf) {
    let registry = Registry::start().await;
    let name = registry.push(&simple("x"), "a/b:t");
    let images = open(&root);
    images.pull(&name, None).await.unwrap();
    let image = images.find(&name).unwrap().unwrap();
    let prepare = async || {
        let prepared = images.prepare(&container(1), &image).await;
        if prepared.is_err() {
            nothing_of_it(&images, &root);
        }
        prepared.map(drop)
    };
    assert!(until_it_fits(room, &root, prepare).await > 0);
    room.leave(&root, 0);
    images.release(&container(1)).await.unwrap();
    nothing_of_it(&images, &root);
}

fn nothing_of_it(images: &Images, root: &Path) {
    assert_eq!(images.snapshots(), []);
    assert!(names(&root.join("leases")).is_empty());
    assert!(names(&root.join("snapshots/containers")).is_empty());
}

#[test]
fn privileged_snapshots_tell_of_a_disk_without_pages() {
    on_a_small_disk(|root| snapshots(Room::Pages, root));
}

#[test]
fn privileged_snapshots_tell_of_a_disk_without_inodes() {
    on_a_small_disk(|root| snapshots(Room::Inodes, root));
}
