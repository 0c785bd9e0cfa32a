//! The runtime handlers: which there are, what each can do here, and pods that ask one for more.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use crisp_model::{Field, PodConfig};
use crisp_sys::file;

use crate::config::{Config, Features, Handler, Support};
use crate::error::{Context, Error, Result};
use crate::paths::Paths;
use crate::shared::Shared;

/// The right of everybody but the owner to pass through a directory.
const PASS: u32 = 0o011;
/// The same of who is not in its group either, as nobody in a user namespace is.
const PASS_OF_OTHERS: u32 = 0o001;

impl Shared {
    /// The handler that a pod asks for.
    pub(crate) fn handler(&self, name: &str) -> Result<&Handler> {
        let mut handlers = self.config.handlers.iter();
        handlers.find(|known| known.name == name).ok_or_else(|| {
            let why = format!("no runtime handler {name:?} is configured");
            Error::invalid(Field::RuntimeHandler, why)
        })
    }

    /// The features of all, the default one, whose name is empty, first.
    pub(crate) fn handlers(&self) -> Vec<Features> {
        let mut handlers: Vec<_> = self.config.handlers.iter().collect();
        handlers.sort_unstable_by_key(|handler| &handler.name);
        handlers
            .into_iter()
            .map(|handler| self.features(handler))
            .collect()
    }

    fn features(&self, handler: &Handler) -> Features {
        let of = |is: bool| if is { Support::Yes } else { Support::No };
        let mut recursive = self.config.host.has_recursive_read_only();
        let mut users = self.config.user_namespaces.is_ok();
        match handler.oci.as_ref().map(|oci| &oci.can) {
            None => {}
            Some(Ok(can)) => {
                recursive &= can.recursive_read_only == Support::Yes;
                users &= can.user_namespaces.is_ok();
            }
            Some(Err(_)) => (recursive, users) = (false, false),
        }
        Features {
            handler: handler.name.clone(),
            recursive_read_only: of(recursive),
            user_namespaces: of(users),
        }
    }

    /// The handlers whose pods are refused, and why each.
    pub(crate) fn handlers_shortfall(&self) -> Option<String> {
        let handlers = self.config.handlers.iter();
        let unusable = handlers.filter_map(|handler| handler.oci.as_ref()?.can.as_ref().err());
        // The default one is among them twice.
        let reasons: BTreeSet<&str> = unusable.map(String::as_str).collect();
        let reasons: Vec<&str> = reasons.into_iter().collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    /// Why pods that name no handler are refused.
    pub(crate) fn default_shortfall(&self) -> Option<String> {
        let oci = self.handler("").ok()?.oci.as_ref()?;
        oci.can.as_ref().err().cloned()
    }

    /// Refuses a pod whose handler can start nothing, or gives no user namespaces to one that asks for
    /// its own: it must not run without.
    pub(crate) fn check_handler(&self, config: &PodConfig) -> Result<()> {
        let handler = self.handler(&config.runtime_handler)?;
        let refuse = |why: String| Err(Error::FailedPrecondition(why));
        let can = match handler.oci.as_ref().map(|oci| &oci.can) {
            Some(Err(why)) => return refuse(why.clone()),
            Some(Ok(can)) => &can.user_namespaces,
            None => &Ok(()),
        };
        if config.namespaces.users.is_none() {
            return Ok(());
        }
        match (&self.config.user_namespaces, can) {
            (Err(why), _) => refuse(format!(
                "pods cannot have user namespaces on this node: {why}"
            )),
            (_, Err(why)) => refuse(format!(
                "pods of the runtime handler {:?} cannot have user namespaces: {why}",
                config.runtime_handler
            )),
            (Ok(()), Ok(())) => Ok(()),
        }
    }
}

/// Makes the directories that other OCI runtimes work in, and finds out which of them can have user
/// namespaces there.
pub(crate) fn make_places(config: &mut Config, paths: &Paths) -> Result<()> {
    let mut way = None;
    for oci in config.handlers.iter_mut().filter_map(|h| h.oci.as_mut()) {
        for dir in [paths.runtimes().join(&oci.name), paths.empty_root()] {
            file::make_private_dirs(&dir).context(|| format!("make {}", dir.display()))?;
        }
        let (Ok(can), Ok(())) = (&mut oci.can, &config.user_namespaces) else {
            continue;
        };
        if can.user_namespaces.is_ok() {
            can.user_namespaces = way
                .get_or_insert_with(|| make_way(&paths.way_to_roots()))
                .clone();
        }
    }
    if way.is_none() {
        close_way(&paths.way_to_roots());
    }
    Ok(())
}

/// Closes what an earlier daemon had opened for handlers that this one does not have.
fn close_way(own: &[PathBuf]) {
    for dir in own {
        let mode = fs::metadata(dir).map(|found| found.permissions().mode());
        let open = mode.ok().filter(|mode| mode & PASS != 0);
        let closed =
            open.map(|mode| fs::set_permissions(dir, Permissions::from_mode(mode & !PASS)));
        if let Some(Err(error)) = closed {
            tracing::warn!(dir = %dir.display(), %error, "a directory stays open to all");
        }
    }
}

/// Lets everybody pass through the directories of Crisp's own that lie above the roots of other
/// runtimes' containers: the root of a user namespace is no user of the host's that could else. It
/// still enters none of those beside them. The value is the reason why it cannot pass.
fn make_way(own: &[PathBuf]) -> std::result::Result<(), String> {
    let above = own.iter().flat_map(|dir| dir.ancestors());
    let above = above.filter(|dir| !own.iter().any(|own| own == dir));
    for dir in above {
        let mode = fs::metadata(dir).map(|meta| meta.permissions().mode());
        let mode = mode.map_err(|error| format!("{}: {error}", dir.display()))?;
        if mode & PASS_OF_OTHERS == 0 {
            let dir = dir.display();
            return Err(format!(
                "the roots of their containers lie below {dir}, which not everybody may pass: chmod \
                 a+x {dir}, or choose another stateDir, and restart crispd"
            ));
        }
    }
    for dir in own {
        let passable = || {
            let mode = fs::metadata(dir)?.permissions().mode();
            fs::set_permissions(dir, Permissions::from_mode(mode | PASS))
        };
        passable()
            .map_err(|error| format!("{} cannot be opened to all: {error}", dir.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_way_to_roots_is_open_or_who_closes_it_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let outer = dir.path().join("outer");
        let own = [outer.join("state"), outer.join("state/pins")];
        file::make_private_dirs(&own[1]).unwrap();
        let chmod = |dir: &Path, mode| fs::set_permissions(dir, Permissions::from_mode(mode));
        chmod(dir.path(), 0o711).unwrap();
        let why = make_way(&own).unwrap_err();
        assert!(
            why.contains(&format!("chmod a+x {},", outer.display())),
            "{why}"
        );
        chmod(&outer, 0o755).unwrap();
        assert_eq!(make_way(&own), Ok(()));
        for dir in &own {
            let mode = fs::metadata(dir).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o711, "{}", dir.display());
        }
        close_way(&own);
        let mode = |dir: &Path| fs::metadata(dir).unwrap().permissions().mode() & 0o777;
        assert!(own.iter().all(|dir| mode(dir) == 0o700));
        // A way that leads nowhere stays closed.
        chmod(&outer, 0o700).unwrap();
        make_way(&own).unwrap_err();
        assert!(own.iter().all(|dir| mode(dir) == 0o700));
    }
}
