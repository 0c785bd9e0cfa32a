//! Records of attachments on disk: for each pod the configuration that it was attached by, and the
//! plugins' result.
//!
//! A record is written before the first plugin is called, so that an attachment that a killed daemon
//! left half made is found and undone. It is removed when DEL of the whole chain has succeeded.
//!
//! The start of a pod does not wait for the disk, so a power cut may leave a record empty. A record
//! that cannot be read is set aside, and never keeps its pod from being removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crisp_model::PodId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::conf::ConfList;
use crate::attachment::PodNetwork;
use crate::error::{Context, Error, Result};
use crate::protocol::CniResult;

const FORMAT: u32 = 1;
const LARGEST: u64 = 16 << 20;

/// The record of one pod.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    format: u32,
    pub pod: PodNetwork,
    pub list: ConfList,
    /// Missing until ADD has succeeded.
    result: Option<Value>,
}

impl Record {
    /// The record of a pod that is about to be attached.
    pub(crate) fn new(pod: &PodNetwork, list: &ConfList) -> Self {
        Self {
            format: FORMAT,
            pod: pod.clone(),
            list: list.clone(),
            result: None,
        }
    }

    /// The same with the result of ADD.
    pub(crate) fn with_result(mut self, result: &CniResult) -> Self {
        self.result = Some(result.render(self.list.version()));
        self
    }

    /// The result, if ADD has succeeded.
    pub(crate) fn result(&self) -> Option<CniResult> {
        self.result
            .as_ref()
            .and_then(|value| CniResult::parse(value).ok())
    }
}

/// Written in place of a record that was lost, until the pod is detached without it.
#[derive(Debug, Serialize, Deserialize)]
struct Lost {
    format: u32,
    lost: Option<Box<PodNetwork>>,
}

/// The state of a pod's record.
#[derive(Debug)]
pub(crate) enum Found {
    /// No record: the pod was never attached, or was detached.
    Nothing,
    /// A record.
    Record(Box<Record>),
    /// The record was lost, and DEL without it has not succeeded yet. The pod, where it is known.
    Lost(Option<Box<PodNetwork>>),
    /// A file that cannot be read as a record, and why.
    Damaged(String),
}

/// Whether a read failed because the file or the disk is damaged, and not because this process
/// lacks a right or a resource.
fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, IsADirectory};
    let of_disk = [libc::EIO, libc::EUCLEAN, libc::EBADMSG];
    matches!(error.kind(), FileTooLarge | IsADirectory)
        || error.raw_os_error().is_some_and(|e| of_disk.contains(&e))
}

pub(crate) fn parse(bytes: &[u8]) -> std::result::Result<Record, String> {
    let value: Value = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    let format = value.get("format").and_then(Value::as_u64);
    if format != Some(FORMAT.into()) {
        return Err(format!("format {format:?} is not known to this version"));
    }
    serde_json::from_value(value).map_err(|e| e.to_string())
}

fn parse_lost(bytes: &[u8]) -> Option<Found> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    value.get("lost")?;
    let lost: Lost = serde_json::from_value(value).ok()?;
    (lost.format == FORMAT).then_some(Found::Lost(lost.lost))
}

/// The directory of records.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    dir: PathBuf,
}

impl Cache {
    /// Opens, or makes, the directory.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        crisp_sys::file::make_private_dirs(dir)
            .context(|| format!("make network record directory {}", dir.display()))?;
        crisp_sys::file::sweep_unfinished(dir)
            .context(|| format!("sweep network record directory {}", dir.display()))?;
        Ok(Self {
            dir: dir.to_owned(),
        })
    }

    fn path(&self, pod: &PodId) -> PathBuf {
        self.dir.join(format!("{pod}.json"))
    }

    /// Writes a pod's record, whole or not at all.
    pub(crate) fn write(&self, record: &Record) -> Result<()> {
        self.put(&record.pod.pod_id, record)
    }

    /// Notes that a pod may be attached and that its record is lost.
    pub(crate) fn write_lost(&self, id: &PodId, pod: Option<&PodNetwork>) -> Result<()> {
        let lost = Lost {
            format: FORMAT,
            lost: pod.cloned().map(Box::new),
        };
        self.put(id, &lost)
    }

    fn put(&self, pod: &PodId, content: &impl Serialize) -> Result<()> {
        let path = self.path(pod);
        let bytes = serde_json::to_vec(content).map_err(|e| Error::invalid("network record", e))?;
        crisp_sys::file::write_atomic(&path, &bytes, 0o600)
            .context(|| format!("write network record {}", path.display()))
    }

    /// Brings a pod's record to the disk. A start does without that; a record that outlives its pod
    /// is all that is known of what the pod has left.
    pub(crate) fn sync(&self, pod: &PodId) -> Result<()> {
        let path = self.path(pod);
        let synced = fs::File::open(&path).and_then(|file| file.sync_all());
        synced
            .and_then(|()| crisp_sys::file::sync_dir(&self.dir))
            .context(|| format!("sync network record {}", path.display()))
    }

    /// Looks for a pod's record, and tells a damaged one from a missing one.
    pub(crate) fn look(&self, pod: &PodId) -> Result<Found> {
        let path = self.path(pod);
        match crisp_sys::file::read_bounded(&path, LARGEST) {
            Ok(bytes) => Ok(match parse(&bytes) {
                Ok(record) => Found::Record(Box::new(record)),
                Err(why) => parse_lost(&bytes).unwrap_or(Found::Damaged(why)),
            }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
            Err(e) if is_damage(&e) => Ok(Found::Damaged(e.to_string())),
            failed => failed
                .map(|_| Found::Nothing)
                .context(|| format!("read network record {}", path.display())),
        }
    }

    /// A pod's record; a damaged one is an error.
    pub(crate) fn read(&self, pod: &PodId) -> Result<Option<Record>> {
        match self.look(pod)? {
            Found::Nothing | Found::Lost(_) => Ok(None),
            Found::Record(record) => Ok(Some(*record)),
            Found::Damaged(why) => {
                let what = format!("network record {}", self.path(pod).display());
                Err(Error::invalid(what, why))
            }
        }
    }

    /// Renames a damaged record, so that the operator can look at it and no daemon does.
    pub(crate) fn set_aside(&self, pod: &PodId, why: &str) -> Result<()> {
        let path = self.path(pod);
        let kept = path.with_extension("json.damaged");
        fs::rename(&path, &kept)
            .context(|| format!("set aside network record {}", path.display()))?;
        tracing::error!(pod_id = %pod, kept = %kept.display(), why, "damaged network record set aside");
        Ok(())
    }

    /// Removes a pod's record; a missing one is no error.
    pub(crate) fn remove(&self, pod: &PodId) -> Result<()> {
        let path = self.path(pod);
        crisp_sys::file::remove_if_there(&path)
            .context(|| format!("remove network record {}", path.display()))
    }

    /// All pods that have a record.
    pub(crate) fn pods(&self) -> Result<Vec<PodId>> {
        let entries = fs::read_dir(&self.dir)
            .context(|| format!("list network records in {}", self.dir.display()))?;
        let id = |entry: io::Result<fs::DirEntry>| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            PodId::parse(name.strip_suffix(".json")?).ok()
        };
        Ok(entries.filter_map(id).collect())
    }
}
