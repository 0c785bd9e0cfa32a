//! The built-in network: a compiled-in list whose subnets are as configured, else as the cluster
//! says (the node's pod CIDR), else those that go with the bridge.
//!
//! A cluster says so some time after the daemon's start. The subnets are changed only while no pod
//! has an address, and are remembered, so that the next daemon begins with them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crisp_sys::file;
use serde_json::{Value, json};

use crate::builtin::{self, Crisp, Settings, Sources};
use crate::client::{Caller, ConfList};
use crate::error::{Context, Result};

/// The built-in network as it is configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Builtin {
    /// Name of the bridge; empty, with no subnets either, means the first free of `crisp0`,
    /// `crisp1`, … with subnets to match.
    pub bridge: String,
    /// Pod subnets (`10.88.0.0/16`). A pod gets an address from each; empty means those of
    /// `crisp0`, or the pod CIDR.
    pub subnets: Vec<String>,
    /// Whether a pod may choose its address and MAC by annotation, and so take a neighbour's.
    pub allow_annotations: bool,
    /// The addresses that pods may send from.
    pub sources: Sources,
    /// Networks (`10.244.0.0/16`) that see the pods' own addresses, as the pods of other nodes do.
    pub masquerade_except: Vec<String>,
    /// MTU of the bridge and of the pods' interfaces; `None` is the kernel's, 1500.
    pub mtu: Option<u32>,
}

/// The fate of a pod CIDR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodCidr {
    /// Pods get their addresses of it.
    InForce,
    /// A configuration says which addresses pods get.
    Configured,
    /// Pods have addresses of other subnets: it waits until none has.
    InUse,
}

/// The built-in network as it is in force.
#[derive(Debug)]
pub(super) struct Compiled {
    mode: Builtin,
    data_root: PathBuf,
    crisp: Mutex<Arc<Crisp>>,
}

/// The bridge and subnets that a cluster has given.
fn remembered(data_root: &Path, bridge: &str) -> Option<Value> {
    const LONGEST: u64 = 1 << 16;
    if let Err(error) = file::sweep_unfinished(data_root) {
        tracing::warn!(dir = %data_root.display(), %error, "unfinished files stay");
    }
    let bytes = file::read_bounded(&memory(data_root), LONGEST).ok()?;
    let place: Value = serde_json::from_slice(&bytes).ok()?;
    let fits = bridge.is_empty() || place["bridge"] == bridge;
    (fits && Settings::parse(&place, data_root).is_ok()).then_some(place)
}

fn memory(data_root: &Path) -> PathBuf {
    data_root.join("pod-cidr.json")
}

/// The compiled-in list. Without a bridge and subnets in the configuration a free bridge is chosen,
/// so that several daemons run side by side.
fn list(mode: &Builtin, mut plugin: Value) -> Result<ConfList> {
    let allow = mode.allow_annotations;
    plugin["type"] = json!(builtin::TYPE);
    plugin["mtu"] = json!(mode.mtu);
    plugin["masqueradeExcept"] = json!(mode.masquerade_except);
    plugin["allowForeignSources"] = json!(mode.sources == Sources::Any);
    plugin["capabilities"] = json!({"portMappings": true, "ips": allow, "mac": allow});
    ConfList::inline(&json!({"cniVersion": "1.1.0", "name": "crisp", "plugins": [plugin]}))
}

fn place(mode: &Builtin, data_root: &Path) -> Result<Value> {
    let Builtin {
        bridge, subnets, ..
    } = mode;
    let configured = || json!({"bridge": bridge, "subnets": subnets});
    if !subnets.is_empty() {
        return Ok(configured());
    }
    match remembered(data_root, bridge) {
        Some(place) => Ok(place),
        None if bridge.is_empty() => builtin::choose(data_root),
        None => Ok(configured()),
    }
}

impl Compiled {
    /// The network that a configuration asks for, and its list.
    pub(super) fn open(
        mode: Builtin,
        data_root: &Path,
        caller: &Caller,
    ) -> Result<(Self, ConfList)> {
        let list = list(&mode, place(&mode, data_root)?)?;
        let compiled = Self {
            crisp: Mutex::new(caller.crisp_of(&list)?),
            data_root: data_root.to_owned(),
            mode,
        };
        Ok((compiled, list))
    }

    fn crisp(&self) -> MutexGuard<'_, Arc<Crisp>> {
        self.crisp.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes whole what is missing of it; see [`Crisp::prepare`].
    pub(super) fn prepare(&self) -> Result<Vec<String>> {
        let crisp = Arc::clone(&self.crisp());
        crisp.prepare()
    }
}

impl Compiled {
    /// Gives pods addresses of other subnets from now on, and returns the list that says so, where
    /// that is a change. No ADD or DEL may be under way.
    pub(super) fn change(
        &self,
        subnets: &[String],
        caller: &Caller,
    ) -> Result<(PodCidr, Option<ConfList>)> {
        if !self.mode.subnets.is_empty() {
            return Ok((PodCidr::Configured, None));
        }
        let old = Arc::clone(&self.crisp());
        let place = json!({"bridge": old.settings().bridge, "subnets": subnets});
        let wanted = Settings::parse(&place, &self.data_root)?;
        if wanted.subnets == old.settings().subnets {
            return Ok((PodCidr::InForce, None));
        }
        if old.is_used()? {
            return Ok((PodCidr::InUse, None));
        }
        old.retire()?;
        let list = list(&self.mode, place.clone())?;
        let new = caller.crisp_of(&list);
        let new = new.and_then(|new| new.prepare().map(|_left| new));
        match new.and_then(|new| self.remember(&place).map(|()| new)) {
            Ok(new) => {
                *self.crisp() = new;
                Ok((PodCidr::InForce, Some(list)))
            }
            Err(error) => {
                old.revive();
                old.prepare()?;
                Err(error)
            }
        }
    }

    fn remember(&self, place: &Value) -> Result<()> {
        let path = memory(&self.data_root);
        let text = place.to_string();
        file::write_atomic(&path, text.as_bytes(), 0o600)
            .context(|| format!("write {}", path.display()))
    }
}
