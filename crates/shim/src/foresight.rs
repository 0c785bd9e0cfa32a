//! The things that are known of a container before it is to be started, and were done about them.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;

use crisp_runtime::Ahead as Steps;
use crisp_shim_api::{Ahead, LAST_WORDS};
use oci_spec::runtime::Spec;

use crate::bundle::{parse, read_spec, rootfs};

/// Steps taken, and the spec as it was read.
#[derive(Debug, Default)]
pub(crate) struct Foresight {
    pub(crate) steps: Steps,
    spec: Option<(Vec<u8>, Spec)>,
}

impl Foresight {
    /// Does what can be done already. A step that fails is taken again by the start, which tells
    /// why.
    pub(crate) fn learn(&mut self, ahead: &Ahead) {
        let read = ahead.bundle.as_deref().and_then(|bundle| {
            let bytes = read_spec(bundle).ok()?;
            let spec = parse(bundle, &bytes).ok()?;
            Some((bundle, bytes, spec))
        });
        let spec = read.as_ref().map(|(_, _, spec)| spec);
        self.steps.mount(rootfs(&ahead.rootfs), spec);
        if let Some((bundle, bytes, spec)) = read {
            self.steps.read(&spec, bundle);
            self.spec = Some((bytes, spec));
            // The daemon opens it for the start.
            let mut log = OpenOptions::new();
            log.create(true).append(true).mode(0o600);
            drop(log.open(bundle.join(LAST_WORDS)));
        }
    }

    /// The spec in these bytes, if they were read before: an update of the container may have
    /// written others meanwhile.
    pub(crate) fn spec(&mut self, bytes: &[u8]) -> Option<Spec> {
        let (read, spec) = self.spec.take()?;
        (read == bytes).then_some(spec)
    }
}
