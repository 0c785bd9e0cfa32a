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
    /// Whether pods need addresses of the pod CIDR.
    pub pod_cidr: Need,
    /// Whether a pod may choose its address and MAC by annotation, and so take a neighbour's.
    pub allow_annotations: bool,
    /// The addresses that pods may send from.
    pub sources: Sources,
    /// Networks (`10.244.0.0/16`) that see the pods' own addresses, as the pods of other nodes do.
    pub masquerade_except: Vec<String>,
    /// MTU of the bridge and of the pods' interfaces; `None` is the kernel's, 1500.
    pub mtu: Option<u32>,
}

/// Whether pods need addresses of the pod CIDR, where no subnets are configured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Need {
    /// They have addresses of the bridge's own subnets until it is known. Other nodes have no route there.
    #[default]
    Optional,
    /// The network is not ready before it is in force.
    Required,
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
    memory: Mutex<Memory>,
}

/// The word of a cluster, which the next daemon begins with: the bridge and the subnets in force,
/// `{"bridge": "crisp0", "subnets": ["10.99.1.0/24"]}`, and in `waits` the subnets that have to wait.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Memory {
    in_force: Option<Value>,
    waits: Vec<String>,
}

impl Memory {
    fn path(data_root: &Path) -> PathBuf {
        data_root.join("pod-cidr.json")
    }

    /// Reads what an earlier daemon wrote, and leaves out the parts that make no sense here.
    fn read(data_root: &Path, bridge: &str) -> Self {
        const LONGEST: u64 = 1 << 16;
        if let Err(error) = file::sweep_unfinished(data_root) {
            tracing::warn!(dir = %data_root.display(), %error, "unfinished files stay");
        }
        let bytes = file::read_bounded(&Self::path(data_root), LONGEST).unwrap_or_default();
        let mut place: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let waits = place
            .as_object_mut()
            .and_then(|place| place.remove("waits"));
        let named = place["bridge"].as_str();
        let fits = named.is_some_and(|name| bridge.is_empty() || name == bridge);
        let makes_sense = |place: &Value| Settings::parse(place, data_root).is_ok();
        Self {
            waits: serde_json::from_value(waits.unwrap_or_default()).unwrap_or_default(),
            in_force: (fits && makes_sense(&place)).then_some(place),
        }
    }

    fn write(&self, data_root: &Path) -> Result<()> {
        let mut text = self.in_force.clone().unwrap_or_else(|| json!({}));
        if !self.waits.is_empty() {
            text["waits"] = json!(self.waits);
        }
        let path = Self::path(data_root);
        file::write_atomic(&path, text.to_string().as_bytes(), 0o600)
            .context(|| format!("write {}", path.display()))
    }
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

fn place(mode: &Builtin, data_root: &Path, memory: &Memory) -> Result<Value> {
    let Builtin {
        bridge, subnets, ..
    } = mode;
    let configured = || json!({"bridge": bridge, "subnets": subnets});
    if !subnets.is_empty() {
        return Ok(configured());
    }
    match &memory.in_force {
        Some(place) => Ok(place.clone()),
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
        let memory = Memory::read(data_root, &mode.bridge);
        let list = list(&mode, place(&mode, data_root, &memory)?)?;
        let compiled = Self {
            crisp: Mutex::new(caller.crisp_of(&list)?),
            memory: Mutex::new(memory),
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
    /// that is a change. Subnets that have to wait are remembered. No ADD or DEL may be under way.
    pub(super) fn change(
        &self,
        subnets: &[String],
        caller: &Caller,
    ) -> Result<(PodCidr, Option<ConfList>)> {
        let Some(wanted) = self.wanted(subnets)? else {
            return Ok((PodCidr::Configured, None));
        };
        let old = Arc::clone(&self.crisp());
        if wanted.subnets == old.settings().subnets {
            let place = self.place_of(subnets);
            self.remember(|memory| {
                memory.in_force = Some(place);
                memory.waits.clear();
            })?;
            return Ok((PodCidr::InForce, None));
        }
        if old.is_used()? {
            self.wait_for(subnets)?;
            return Ok((PodCidr::InUse, None));
        }
        old.retire()?;
        let place = self.place_of(subnets);
        let list = list(&self.mode, place.clone())?;
        let new = caller.crisp_of(&list);
        let new = new.and_then(|new| new.prepare().map(|_left| new));
        let in_force = || {
            self.remember(|memory| {
                memory.in_force = Some(place);
                memory.waits.clear();
            })
        };
        match new.and_then(|new| in_force().map(|()| new)) {
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

    /// Remembers subnets that have to wait, in place of others that did, where they make sense and no
    /// configuration names others.
    pub(super) fn wait_for(&self, subnets: &[String]) -> Result<()> {
        if self.wanted(subnets)?.is_none() {
            return Ok(());
        }
        self.remember(|memory| memory.waits = subnets.to_vec())
    }

    /// Why pods have to wait, where they wait for the pod CIDR and it is not in force.
    pub(super) fn awaited(&self) -> Option<&'static str> {
        const UNKNOWN: &str = "the kubelet has told this daemon no pod CIDR yet, which \
             network.builtin.wait_for_pod_cidr waits for: the Node object has it in spec.podCIDR once a \
             controller has given the node one; where it is there, restart the kubelet, which tells it once";
        const WAITS: &str = "the pod CIDR waits until no pod has an address of other subnets, and new pods \
             wait for it (network.builtin.wait_for_pod_cidr): drain the node";
        if self.mode.pod_cidr == Need::Optional || !self.mode.subnets.is_empty() {
            return None;
        }
        let memory = self.memory();
        let in_force = memory.in_force.as_ref().map(|place| &place["subnets"]);
        if memory.waits.is_empty() {
            return in_force.is_none().then_some(UNKNOWN);
        }
        // A pod CIDR that is in force already may wait for the end of an attachment.
        (in_force != Some(&json!(memory.waits))).then_some(WAITS)
    }

    /// The subnets that an earlier daemon was told and could not put in force.
    pub(super) fn waits(&self) -> Option<Vec<String>> {
        let waits = self.memory().waits.clone();
        (self.mode.subnets.is_empty() && !waits.is_empty()).then_some(waits)
    }

    fn place_of(&self, subnets: &[String]) -> Value {
        json!({"bridge": self.crisp().settings().bridge, "subnets": subnets})
    }

    /// The network with these subnets; `None` where the configuration names others.
    fn wanted(&self, subnets: &[String]) -> Result<Option<Settings>> {
        if !self.mode.subnets.is_empty() {
            return Ok(None);
        }
        Settings::parse(&self.place_of(subnets), &self.data_root).map(Some)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the memory once the change is on the disk.
    fn remember(&self, change: impl FnOnce(&mut Memory)) -> Result<()> {
        let mut memory = self.memory();
        let mut changed = memory.clone();
        change(&mut changed);
        if changed != *memory {
            changed.write(&self.data_root)?;
            *memory = changed;
        }
        Ok(())
    }
}
