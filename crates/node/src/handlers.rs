//! The runtime handlers: which there are, what each can do here, and pods that ask one for more.

use crisp_model::{Field, PodConfig};

use crate::config::{Features, Handler, Support};
use crate::error::{Error, Result};
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
        let kernel = match self.config.host.has_recursive_read_only() {
            true => Support::Yes,
            false => Support::No,
        };
        let (recursive_read_only, user_namespaces) = match &handler.oci {
            Some(oci) if kernel == Support::Yes => (oci.recursive_read_only, Support::No),
            Some(_) => (Support::No, Support::No),
            None => (kernel, self.has_users()),
        };
        Features {
            handler: handler.name.clone(),
            recursive_read_only,
            user_namespaces,
        }
    }

    /// Whether pods can have user namespaces.
    pub(crate) fn has_users(&self) -> Support {
        match self.config.user_namespaces {
            Ok(()) => Support::Yes,
            Err(_) => Support::No,
        }
    }

    /// A pod that asks for a user namespace must not run without one.
    pub(crate) fn check_users(&self, config: &PodConfig, handler: &Handler) -> Result<()> {
        if config.namespaces.users.is_some() && handler.oci.is_some() {
            let why = format!(
                "pods of the runtime handler {:?} cannot have user namespaces: use a handler of kind \
                 native",
                config.runtime_handler
            );
            return Err(Error::FailedPrecondition(why));
        }
        match &self.config.user_namespaces {
            Err(why) if config.namespaces.users.is_some() => {
                let why = format!("pods cannot have user namespaces on this node: {why}");
                Err(Error::FailedPrecondition(why))
            }
            _ => Ok(()),
        }
    }
}
