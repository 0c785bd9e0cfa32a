//! Mounts of a test's own: what it mounts, its daemon and its pods see, and the machine does not.

use rustix::mount::{MountPropagationFlags, mount_change};

/// Runs a test whose mounts are its own: also those of the daemon that it starts.
pub fn in_own_mounts(test: impl FnOnce() + Send + 'static) {
    let apart = std::thread::spawn(|| {
        #[expect(deprecated, reason = "the thread has no other users of its namespace")]
        rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS).unwrap();
        let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        mount_change("/", slave).unwrap();
        test();
    });
    if let Err(panic) = apart.join() {
        std::panic::resume_unwind(panic);
    }
}
