//! The runtime handlers: which there are, what each can do here, and pods that ask one for more.

use std::collections::BTreeSet;

use crisp_model::{Field, PodConfig};
use crisp_sys::file;

use crate::config::{Config, Features, Handler, Support};
use crate::error::{Context, Error, Result};
use crate::paths::Paths;
use crate::shared::Shared;

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

/// Directories that other OCI runtimes work in.
pub(crate) fn make_places(config: &Config, paths: &Paths) -> Result<()> {
    let runtimes = config.handlers.iter().filter_map(|handler| {
        let oci = handler.oci.as_ref()?;
        Some([paths.runtimes().join(&oci.name), paths.empty_root()])
    });
    runtimes.flatten().try_for_each(|dir| {
        file::make_private_dirs(&dir).context(|| format!("make {}", dir.display()))
    })
}
