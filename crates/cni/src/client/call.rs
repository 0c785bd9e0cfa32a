//! Calls a plugin chain: ADD from the first plugin to the last, DEL from the last to the first.
//!
//! Each plugin gets the result of the one before. Plugins of type `crisp` run in this process; all
//! others are programs.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crisp_model::text::bounded;
use serde_json::{Map, Value, json};

use super::complaint::Complaint;
use super::conf::{ConfList, Optional, Plugin};
use super::exec::{self, Outcome};
use super::orphans::{self, Mark};
use super::runtime_config::declared;
use super::target::Target;
use crate::builtin::{self, AddressRelease, Crisp, LinkRemoval, Owner, Request, Settings};
use crate::error::{Error, PluginCall, Result};
use crate::protocol::{CniResult, Version};

/// The longest text of a plugin in an error: grpc clients refuse long ones.
const MOST_SAID: usize = 1024;
/// The longest of its parts, so that each has its place.
const MOST_PART: usize = 480;

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

    /// The call as errors name it.
    fn named(&self) -> PluginCall {
        let label = self.target.map(|target| target.label.clone());
        PluginCall {
            plugin: self.plugin.kind().to_owned(),
            network: self.list.name.clone(),
            verb: self.verb.as_str(),
            pod: label.unwrap_or_else(|| "the node".to_owned()),
        }
    }

    /// The text may be a stranger's, so that it is bounded.
    fn failure(&self, code: u32, message: &str) -> Error {
        Error::Plugin {
            call: self.named(),
            code,
            message: bounded(message, MOST_SAID),
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

    fn not_started(&self, why: String) -> Error {
        Error::NotStarted {
            call: self.named(),
            why,
        }
    }

    fn hung(&self, after: Duration) -> Error {
        Error::Hung {
            call: self.named(),
            after,
        }
    }

    /// The plugin's answer, or the error that it printed or died with.
    fn judge(&self, status: Option<ExitStatus>, stdout: Vec<u8>, stderr: &[u8]) -> Result<Vec<u8>> {
        let complaint = Complaint::read(&stdout);
        match status {
            Some(status) if status.success() => return Ok(stdout),
            None if complaint.is_none() => return Ok(stdout),
            _ => {}
        }
        let (code, message) = match complaint {
            Some(complaint) => (complaint.code, bounded(&complaint.text, MOST_PART)),
            None => (0, with_words(exec::describe(status), &stdout)),
        };
        Err(self.failure(code, &with_words(message, stderr)))
    }
}

/// An ADD of a chain that failed.
#[derive(Debug)]
pub(crate) struct NotAdded {
    /// Why.
    pub error: Box<Error>,
    /// How many plugins were started, from the first one on: those may have left something.
    pub started: usize,
}

/// A pod without an address would be taken for ready and be of no use.
fn no_address(list: &ConfList, target: &Target, result: &CniResult) -> Error {
    let what = format!("result of network {:?} for {}", list.name, target.label);
    let why = match result.ips.len() {
        0 => "it names no address; check the address management of the plugin".to_owned(),
        count => format!(
            "it names no address of the pod: {count} of the node's interfaces alone; check the plugin"
        ),
    };
    Error::invalid(what, why)
}

/// A message with what a plugin wrote beside it.
fn with_words(message: String, written: &[u8]) -> String {
    let written = String::from_utf8_lossy(written);
    match written.trim() {
        "" => message,
        words => format!("{message}; it wrote: {}", bounded(words, MOST_PART)),
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
    mark: Mark,
}

impl Caller {
    pub(crate) fn new(bin_dirs: Vec<PathBuf>, timeout: Duration, data_root: PathBuf) -> Self {
        let directory = data_root.parent().unwrap_or(&data_root);
        Self {
            mark: Mark::of(directory),
            bin_dirs,
            timeout,
            data_root,
            crisps: Mutex::default(),
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

    /// The instance of `crisp` for the first plugin of a list.
    pub(crate) fn crisp_of(&self, list: &ConfList) -> Result<Arc<Crisp>> {
        let plugin = list.plugins.first();
        let conf = plugin.map(|plugin| plugin.base(&list.name, list.version()));
        self.crisp(&Value::Object(conf.unwrap_or_default()))
    }

    /// All instances of `crisp` that were ever used.
    pub(crate) fn crisps(&self) -> Vec<Arc<Crisp>> {
        let crisps = self.crisps.lock().unwrap_or_else(PoisonError::into_inner);
        crisps
            .values()
            .map(|(_, crisp)| Arc::clone(crisp))
            .collect()
    }

    /// Ends the plugins that an earlier daemon started and that still run.
    pub(crate) fn end_orphans(&self) {
        self.mark.end_orphans();
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
            call.not_started(format!(
                "failed to find plugin {kind:?} in path {}",
                dirs.join(":")
            ))
        })?;
        let input =
            serde_json::to_vec(&call.conf).map_err(|e| Error::invalid("configuration", e))?;
        let mut environment = call.environment(&self.bin_dirs);
        environment.push((orphans::VARIABLE, self.mark.value().to_owned()));
        let named = |e: io::Error| format!("{}: {e}", program.display());
        let outcome = exec::run(&program, &environment, &input, self.timeout);
        match outcome.map_err(|e| call.failure(0, &named(e)))? {
            Outcome::Hung => Err(call.hung(self.timeout)),
            Outcome::NotStarted(why) => Err(call.not_started(named(why))),
            Outcome::Done {
                status,
                stdout,
                stderr,
            } => call.judge(status, stdout, &stderr),
        }
    }

    fn run_for_result(&self, call: &Call<'_>) -> Result<CniResult> {
        if call.plugin.kind() == builtin::TYPE {
            let (crisp, request) = self.crisp_request(call)?;
            return crisp.add(&request).map_err(|e| named(call, e));
        }
        let stdout = self.run(call)?;
        let mut value: Value = serde_json::from_slice(&stdout)
            .map_err(|e| call.failure(0, &format!("its result is not JSON: {e}")))?;
        // An error document is one whatever the exit status says.
        if let Some(complaint) = Complaint::of_success(&value) {
            return Err(call.failure(complaint.code, &complaint.text));
        }
        if let Some(result) = value.as_object_mut()
            && result
                .get("cniVersion")
                .and_then(Value::as_str)
                .unwrap_or("")
                .is_empty()
        {
            result.insert("cniVersion".into(), json!(call.list.version().to_string()));
        }
        CniResult::parse(&value).map_err(|e| call.failure(0, &e.to_string()))
    }

    fn crisp_request(&self, call: &Call<'_>) -> Result<(Arc<Crisp>, Request)> {
        let target = call
            .target
            .ok_or_else(|| call.failure(4, "no attachment given"))?;
        let conf = Value::Object(call.conf.clone());
        let netns = target.live_netns().map(Path::to_owned);
        let request = Request::parse(target.owner.clone(), netns, &conf)?;
        Ok((self.crisp(&conf)?, request))
    }

    /// ADD of the whole chain. When it fails, the caller must undo it by DEL of the plugins that
    /// were started.
    pub(crate) fn add(
        &self,
        list: &ConfList,
        target: &Target,
    ) -> std::result::Result<CniResult, NotAdded> {
        let mut previous = None;
        for (before, plugin) in list.plugins.iter().enumerate() {
            let call = Call::new(list, plugin, Verb::Add, Some(target));
            let added = self.run_for_result(&call.with_previous(previous.as_ref()));
            previous = Some(added.map_err(|error| NotAdded {
                started: before + usize::from(!matches!(error, Error::NotStarted { .. })),
                error: Box::new(error),
            })?);
        }
        let started = list.plugins.len();
        let result = previous.unwrap_or_default();
        match result.addresses().is_empty() {
            false => Ok(result),
            true => Err(NotAdded {
                error: Box::new(no_address(list, target, &result)),
                started,
            }),
        }
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

    /// STATUS of the whole chain. Plugins of lists older than 1.1 have no STATUS: for them it is
    /// enough that the program exists.
    pub(crate) fn status(&self, list: &ConfList) -> Result<()> {
        for plugin in &list.plugins {
            let call = Call::new(list, plugin, Verb::Status, None);
            if plugin.kind() == builtin::TYPE {
                self.crisp(&Value::Object(call.conf.clone()))
                    .map_err(|e| named(&call, e))?;
            } else if list.version() >= Version::STATUS {
                self.run(&call)?;
            } else if self.find(plugin.kind()).is_none() {
                return Err(call.not_started("failed to find plugin in path".into()));
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
            call: call.named(),
            source: Box::new(other),
        },
    }
}
