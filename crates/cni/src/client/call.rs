//! Calls a plugin chain: ADD from the first plugin to the last, DEL from the last to the first.
//!
//! Each plugin gets the result of the one before. Plugins of type `crisp` run in this process; all
//! others are programs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crisp_model::PodId;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::conf::{ConfList, Optional, Plugin};
use super::exec::{self, Outcome};
use super::runtime_config::{arguments, declared};
use crate::attachment::PodNetwork;
use crate::builtin::{self, AddressRelease, Crisp, LinkRemoval, Owner, Request, Settings};
use crate::error::{Error, Result};
use crate::protocol::{CniResult, Version};

const NSFS_MAGIC: i64 = 0x6e73_6673;
const PROC_MAGIC: i64 = 0x9fa0;
const INTERFACE: &str = "eth0";

/// The command of a plugin call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Add,
    Del,
    Check,
    Gc,
    Status,
}

impl Verb {
    fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
        }
    }
}

/// The attachment that a call is about.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    owner: Owner,
    netns: PathBuf,
    label: String,
    args: String,
    arguments: Map<String, Value>,
}

impl Target {
    /// The attachment of a pod.
    ///
    /// # Errors
    /// When an annotation that asks for bandwidth, an address or a MAC makes no sense.
    pub(crate) fn of(pod: &PodNetwork) -> Result<Self> {
        let arguments = arguments(pod)?;
        Ok(Self {
            arguments,
            ..Self::unasked(pod)
        })
    }

    /// The same without the pod's ports, DNS settings and annotations, which DEL can do without.
    pub(crate) fn unasked(pod: &PodNetwork) -> Self {
        let id = pod.pod_id.as_str();
        let name = &pod.name;
        // A name with a semicolon could otherwise add arguments to the list.
        let clean = |text: &str| text.replace([';', '=', '\0'], "_");
        Self {
            owner: Self::owner(id),
            netns: pod.netns.clone(),
            label: format!("pod {name} ({})", pod.pod_id.short()),
            args: format!(
                "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={id};K8S_POD_UID={}",
                clean(&name.namespace),
                clean(&name.name),
                clean(&name.uid),
            ),
            arguments: Map::new(),
        }
    }

    /// The attachment of a pod of which only the id is known.
    pub(crate) fn nameless(pod: &PodId) -> Self {
        let id = pod.as_str();
        Self {
            owner: Self::owner(id),
            netns: PathBuf::new(),
            label: format!("pod {}", pod.short()),
            args: format!("IgnoreUnknown=1;K8S_POD_INFRA_CONTAINER_ID={id}"),
            arguments: Map::new(),
        }
    }

    /// The one attachment that a sandbox has.
    pub(crate) fn owner(id: &str) -> Owner {
        Owner {
            container: id.to_owned(),
            interface: INTERFACE.to_owned(),
        }
    }

    /// The path of the namespace, unless the pin is gone or no namespace is mounted on it.
    fn live_netns(&self) -> Option<&Path> {
        let stat = rustix::fs::statfs(&self.netns).ok()?;
        matches!(stat.f_type, NSFS_MAGIC | PROC_MAGIC).then_some(self.netns.as_path())
    }
}

/// One call of one plugin.
struct Call<'a> {
    list: &'a ConfList,
    plugin: &'a Plugin,
    verb: Verb,
    target: Option<&'a Target>,
    conf: Map<String, Value>,
}

impl<'a> Call<'a> {
    fn new(list: &'a ConfList, plugin: &'a Plugin, verb: Verb, target: Option<&'a Target>) -> Self {
        let mut conf = plugin.base(&list.name, list.version());
        if let Some(target) = target {
            let told = declared(plugin, &target.arguments);
            if !told.is_empty() {
                conf.insert("runtimeConfig".into(), Value::Object(told));
            }
        }
        Self {
            list,
            plugin,
            verb,
            target,
            conf,
        }
    }

    fn with_previous(mut self, previous: Option<&CniResult>) -> Self {
        if let Some(previous) = previous {
            self.conf
                .insert("prevResult".into(), previous.render(self.list.version()));
        }
        self
    }

    fn label(&self) -> String {
        self.target
            .map_or_else(|| "the node".into(), |t| t.label.clone())
    }

    fn failure(&self, code: u32, message: String) -> Error {
        Error::Plugin {
            plugin: self.plugin.kind().to_owned(),
            network: self.list.name.clone(),
            verb: self.verb.as_str(),
            pod: self.label(),
            code,
            message,
        }
    }

    fn environment(&self, bin_dirs: &[PathBuf]) -> Vec<(&'static str, String)> {
        let path: Vec<String> = bin_dirs.iter().map(|d| d.display().to_string()).collect();
        let mut env = vec![
            ("CNI_COMMAND", self.verb.as_str().to_owned()),
            ("CNI_PATH", path.join(":")),
        ];
        if let Some(target) = self.target {
            let netns = target.live_netns().map(|n| n.display().to_string());
            env.extend([
                ("CNI_CONTAINERID", target.owner.container.clone()),
                ("CNI_NETNS", netns.unwrap_or_default()),
                ("CNI_IFNAME", target.owner.interface.clone()),
                ("CNI_ARGS", target.args.clone()),
            ]);
        }
        env
    }

    /// The plugin's answer, or the error that it printed or died with.
    fn judge(&self, outcome: Outcome, timeout: Duration) -> Result<Vec<u8>> {
        let Outcome::Done {
            status,
            stdout,
            stderr,
        } = outcome
        else {
            return Err(Error::Hung {
                plugin: self.plugin.kind().to_owned(),
                network: self.list.name.clone(),
                verb: self.verb.as_str(),
                pod: self.label(),
                after: timeout,
            });
        };
        let complaint = Complaint::read(&stdout);
        match status {
            Some(status) if status.success() => return Ok(stdout),
            None if complaint.is_none() => return Ok(stdout),
            _ => {}
        }
        let stderr = String::from_utf8_lossy(&stderr);
        let mut message = match &complaint {
            Some(complaint) => complaint.text(),
            None => exec::describe(status),
        };
        if !stderr.trim().is_empty() {
            message = format!("{message}; it wrote: {}", stderr.trim());
        }
        Err(self.failure(complaint.map_or(0, |c| c.code), message))
    }
}

/// The error that a plugin prints.
#[derive(Debug, Deserialize)]
struct Complaint {
    code: u32,
    #[serde(default)]
    msg: String,
    #[serde(default)]
    details: String,
}

impl Complaint {
    fn read(stdout: &[u8]) -> Option<Self> {
        serde_json::from_slice(stdout).ok()
    }

    fn text(&self) -> String {
        if self.details.is_empty() {
            self.msg.clone()
        } else {
            format!("{}: {}", self.msg, self.details)
        }
    }
}

/// The one that calls plugins: where their programs are, and the instances of `crisp`.
#[derive(Debug)]
pub(crate) struct Caller {
    bin_dirs: Vec<PathBuf>,
    timeout: Duration,
    data_root: PathBuf,
    crisps: Mutex<BTreeMap<PathBuf, (Settings, Arc<Crisp>)>>,
    release: Arc<AddressRelease>,
}

impl Caller {
    pub(crate) fn new(bin_dirs: Vec<PathBuf>, timeout: Duration, data_root: PathBuf) -> Self {
        let crisps = Mutex::default();
        Self {
            bin_dirs,
            timeout,
            data_root,
            crisps,
            release: Arc::default(),
        }
    }

    /// The leases of all instances of `crisp`, which the network's worker serves.
    pub(crate) fn address_release(&self) -> Arc<AddressRelease> {
        Arc::clone(&self.release)
    }

    /// The instance of `crisp` for a configuration, opened once.
    pub(crate) fn crisp(&self, conf: &Value) -> Result<Arc<Crisp>> {
        let settings = Settings::parse(conf, &self.data_root)?;
        let mut crisps = self.crisps.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, crisp)) = crisps.get(&settings.data_dir)
            && *known == settings
        {
            return Ok(Arc::clone(crisp));
        }
        let crisp = Arc::new(Crisp::open(settings.clone(), Arc::clone(&self.release))?);
        crisps.insert(settings.data_dir.clone(), (settings, Arc::clone(&crisp)));
        Ok(crisp)
    }

    /// All instances of `crisp` that were ever used.
    pub(crate) fn crisps(&self) -> Vec<Arc<Crisp>> {
        let crisps = self.crisps.lock().unwrap_or_else(PoisonError::into_inner);
        crisps
            .values()
            .map(|(_, crisp)| Arc::clone(crisp))
            .collect()
    }

    /// The path of a plugin's program.
    pub(crate) fn find(&self, plugin: &str) -> Option<PathBuf> {
        let candidates = self.bin_dirs.iter().map(|dir| dir.join(plugin));
        candidates.into_iter().find(|path| path.is_file())
    }

    fn run(&self, call: &Call<'_>) -> Result<Vec<u8>> {
        let kind = call.plugin.kind();
        let program = self.find(kind).ok_or_else(|| {
            let dirs: Vec<String> = self
                .bin_dirs
                .iter()
                .map(|d| d.display().to_string())
                .collect();
            call.failure(
                0,
                format!("failed to find plugin {kind:?} in path {}", dirs.join(":")),
            )
        })?;
        let input =
            serde_json::to_vec(&call.conf).map_err(|e| Error::invalid("configuration", e))?;
        let outcome = exec::run(
            &program,
            &call.environment(&self.bin_dirs),
            &input,
            self.timeout,
        )
        .map_err(|e| call.failure(0, format!("{}: {e}", program.display())))?;
        call.judge(outcome, self.timeout)
    }

    fn run_for_result(&self, call: &Call<'_>) -> Result<CniResult> {
        if call.plugin.kind() == builtin::TYPE {
            let (crisp, request) = self.crisp_request(call)?;
            return crisp.add(&request).map_err(|e| named(call, e));
        }
        let stdout = self.run(call)?;
        let mut value: Value = serde_json::from_slice(&stdout)
            .map_err(|e| call.failure(0, format!("its result is not JSON: {e}")))?;
        if let Some(result) = value.as_object_mut()
            && result
                .get("cniVersion")
                .and_then(Value::as_str)
                .unwrap_or("")
                .is_empty()
        {
            result.insert("cniVersion".into(), json!(call.list.version().to_string()));
        }
        CniResult::parse(&value).map_err(|e| call.failure(0, e.to_string()))
    }

    fn crisp_request(&self, call: &Call<'_>) -> Result<(Arc<Crisp>, Request)> {
        let target = call
            .target
            .ok_or_else(|| call.failure(4, "no attachment given".into()))?;
        let conf = Value::Object(call.conf.clone());
        let netns = target.live_netns().map(Path::to_owned);
        let request = Request::parse(target.owner.clone(), netns, &conf)?;
        Ok((self.crisp(&conf)?, request))
    }

    /// ADD of the whole chain. When it fails, the caller must undo it by DEL.
    pub(crate) fn add(&self, list: &ConfList, target: &Target) -> Result<CniResult> {
        let mut previous = None;
        for plugin in &list.plugins {
            let call = Call::new(list, plugin, Verb::Add, Some(target));
            previous = Some(self.run_for_result(&call.with_previous(previous.as_ref()))?);
        }
        previous.ok_or_else(|| Error::invalid(format!("network {}", list.name), "no plugins"))
    }

    /// DEL of the whole chain, last plugin first. Every plugin is called, even when others fail.
    pub(crate) fn del(
        &self,
        list: &ConfList,
        target: &Target,
        previous: Option<&CniResult>,
    ) -> Result<()> {
        let previous = previous.filter(|_| list.version() >= Version::CHECK);
        let mut errors = Vec::new();
        for plugin in list.plugins.iter().rev() {
            let call = Call::new(list, plugin, Verb::Del, Some(target)).with_previous(previous);
            let done = if plugin.kind() == builtin::TYPE {
                let crisp = self.crisp(&Value::Object(call.conf.clone()));
                crisp
                    .and_then(|c| c.del(&target.owner, LinkRemoval::WithNamespace))
                    .map_err(|e| named(&call, e))
            } else {
                self.run(&call).map(drop)
            };
            errors.extend(done.err());
        }
        Error::gather(errors)
    }

    /// DEL by all instances of `crisp`, for when no list is in force.
    pub(crate) fn del_builtin(&self, target: &Target) -> Result<()> {
        let crisps = self.crisps().into_iter();
        let deleted = crisps.map(|crisp| crisp.del(&target.owner, LinkRemoval::WithNamespace));
        Error::gather(deleted.filter_map(Result::err).collect())
    }

    /// CHECK of the whole chain, where the configuration allows it.
    pub(crate) fn check(&self, list: &ConfList, target: &Target, result: &CniResult) -> Result<()> {
        if !list.allows(Optional::Check) {
            return Ok(());
        }
        for plugin in &list.plugins {
            let call = Call::new(list, plugin, Verb::Check, Some(target));
            let call = call.with_previous(Some(result));
            if plugin.kind() == builtin::TYPE {
                let (crisp, request) = self.crisp_request(&call)?;
                crisp.check(&request).map_err(|e| named(&call, e))?;
            } else {
                self.run(&call)?;
            }
        }
        Ok(())
    }

    /// GC of the whole chain: everything but these attachments is stale.
    pub(crate) fn collect(&self, list: &ConfList, valid: &BTreeSet<Owner>) -> Result<()> {
        let attachments: Vec<Value> = valid
            .iter()
            .map(|o| json!({"containerID": o.container, "ifname": o.interface}))
            .collect();
        let mut errors = Vec::new();
        for plugin in &list.plugins {
            let mut call = Call::new(list, plugin, Verb::Gc, None);
            if plugin.kind() == builtin::TYPE {
                let crisp = self.crisp(&Value::Object(call.conf.clone()));
                errors.extend(
                    crisp
                        .and_then(|c| c.collect(valid))
                        .map_err(|e| named(&call, e))
                        .err(),
                );
            } else if list.allows(Optional::Gc) {
                call.conf
                    .insert("cni.dev/valid-attachments".into(), json!(attachments));
                call.conf
                    .insert("cni.dev/attachments".into(), json!(attachments));
                errors.extend(self.run(&call).err());
            }
        }
        Error::gather(errors)
    }

    /// STATUS of the whole chain. Plugins of lists older than 1.1 have no STATUS: for them it is enough
    /// that the program exists.
    pub(crate) fn status(&self, list: &ConfList) -> Result<()> {
        for plugin in &list.plugins {
            let call = Call::new(list, plugin, Verb::Status, None);
            if plugin.kind() == builtin::TYPE {
                self.crisp(&Value::Object(call.conf.clone()))
                    .map_err(|e| named(&call, e))?;
            } else if list.version() >= Version::STATUS {
                self.run(&call)?;
            } else if self.find(plugin.kind()).is_none() {
                return Err(call.failure(0, "failed to find plugin in path".into()));
            }
        }
        Ok(())
    }
}

/// Adds to an error of `crisp` the network, the command and the pod, as errors of programs have
/// them.
fn named(call: &Call<'_>, error: Error) -> Error {
    match error {
        Error::PortInUse { .. } | Error::Exhausted { .. } => error,
        other => Error::Builtin {
            network: call.list.name.clone(),
            verb: call.verb.as_str(),
            pod: call.label(),
            source: Box::new(other),
        },
    }
}
