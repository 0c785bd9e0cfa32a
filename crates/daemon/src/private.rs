//! The directories that a daemon has to itself.

use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use crate::exit::{Context as _, Exit, Fatal};
use crate::second::LOCK;

/// The mode of a directory of ours that containers of other OCI runtimes pass through.
const OPEN_TO_PASS: u32 = 0o711;

/// Makes a directory that only root may enter. A directory that is there already is made private
/// only if it is empty or a daemon lived in it before: `--state /run` would lock the machine's
/// users out of it.
pub(crate) fn make_private(path: &Path) -> Result<(), Fatal> {
    if path.exists() && !path.is_dir() {
        let reason = format!("{} is no directory: name one", path.display());
        return Err(Fatal::new(Exit::Config, reason));
    }
    let mut private = 0o700;
    if let Ok(mut entries) = path.read_dir() {
        let mode = path
            .metadata()
            .map_or(0, |found| found.permissions().mode());
        let ours = path.join(LOCK).exists() || mode & 0o077 == 0;
        if !ours && entries.next().is_some() {
            let reason = format!(
                "{} holds files of others and is open to them (mode {:o}): name a directory that \
                 is empty, missing or crispd's own",
                path.display(),
                mode & 0o7777
            );
            return Err(Fatal::new(Exit::Config, reason));
        }
        // An OCI runtime may be on its way through it, with a container that it starts.
        if path.join(LOCK).exists() && mode & 0o7777 == OPEN_TO_PASS {
            private = OPEN_TO_PASS;
        }
    }
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path);
    let mode = std::fs::Permissions::from_mode(private);
    let private = made.and_then(|()| std::fs::set_permissions(path, mode));
    private.context(Exit::CannotCreate, || format!("make {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_others_are_left_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        let (empty, missing) = (dir.path().join("empty"), dir.path().join("a/missing"));
        std::fs::create_dir(&empty).unwrap();
        for fit in [&empty, &missing] {
            make_private(fit).unwrap();
            assert_eq!(mode(fit), 0o700);
        }
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let refused = make_private(dir.path()).unwrap_err();
        assert!(refused.reason.contains("mode 755"), "{}", refused.reason);
        assert_eq!(mode(dir.path()), 0o755);
        let file = dir.path().join("file");
        std::fs::File::create(&file).unwrap();
        let refused = make_private(&file).unwrap_err();
        assert!(
            refused.reason.contains("no directory"),
            "{}",
            refused.reason
        );
        std::fs::File::create(dir.path().join(LOCK)).unwrap();
        make_private(dir.path()).unwrap();
        assert_eq!(mode(dir.path()), 0o700);
        // The engine closes it, when no runtime needs it open any more.
        let open = std::fs::Permissions::from_mode(OPEN_TO_PASS);
        std::fs::set_permissions(dir.path(), open).unwrap();
        make_private(dir.path()).unwrap();
        assert_eq!(mode(dir.path()), OPEN_TO_PASS);
    }
}
