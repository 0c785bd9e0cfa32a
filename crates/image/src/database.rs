//! `images.redb`: names, images and layers, each commit synced.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use crisp_model::Digest;
use redb::{ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::record::{Edit, ImageRecord, LayerRecord, VERSION};

type Table = TableDefinition<'static, &'static str, &'static [u8]>;

const META: TableDefinition<'static, &'static str, u64> = TableDefinition::new("meta");
const IMAGES: Table = TableDefinition::new("images");
const NAMES: Table = TableDefinition::new("names");
const LAYERS: Table = TableDefinition::new("layers");

/// Pages kept in memory: the whole database of a node is smaller.
const CACHE: usize = 1 << 20;
/// A daemon that is being replaced may still be on its way out.
const PATIENCE: Duration = Duration::from_secs(5);

/// The open database.
#[derive(Debug)]
pub(crate) struct Database(redb::Database);

/// Everything in it.
#[derive(Debug, Default)]
pub(crate) struct Saved {
    pub(crate) images: BTreeMap<Digest, ImageRecord>,
    pub(crate) names: BTreeMap<String, Digest>,
    pub(crate) layers: BTreeMap<Digest, LayerRecord>,
}

fn fail<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> Error {
    move |error| Error::Database {
        what,
        why: error.to_string(),
    }
}

impl Database {
    /// Opens or makes the database.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let database = Self(create(path)?);
        let transaction = database.0.begin_write().map_err(fail("open"))?;
        {
            let mut meta = transaction.open_table(META).map_err(fail("open"))?;
            let version = meta.get("version").map_err(fail("open"))?;
            let version = version.map(|version| version.value());
            match version {
                Some(VERSION) => {}
                Some(version) => {
                    return Err(Error::Database {
                        what: "open",
                        why: format!(
                            "{} has version {version}, this program knows {VERSION}: \
                             use a newer one",
                            path.display()
                        ),
                    });
                }
                None => {
                    meta.insert("version", VERSION).map_err(fail("open"))?;
                }
            }
        }
        for table in [IMAGES, NAMES, LAYERS] {
            transaction.open_table(table).map_err(fail("open"))?;
        }
        transaction.commit().map_err(fail("open"))?;
        Ok(database)
    }

    /// Reads everything. Rows that cannot be read are left out: what they stand for is fetched
    /// again.
    pub(crate) fn load(&self) -> Result<Saved> {
        Ok(Saved {
            images: by_digest(self.rows(IMAGES)?),
            names: self.rows(NAMES)?,
            layers: by_digest(self.rows(LAYERS)?),
        })
    }

    /// Applies all edits or none, and returns when they are on the disk.
    pub(crate) fn apply(&self, edits: &[Edit]) -> Result<()> {
        if edits.is_empty() {
            return Ok(());
        }
        let transaction = self.0.begin_write().map_err(fail("write"))?;
        for edit in edits {
            match edit {
                Edit::PutImage(id, image) => put(&transaction, IMAGES, id.as_str(), &image.record)?,
                Edit::PutName(name, id) => put(&transaction, NAMES, name, id)?,
                Edit::PutLayer(id, layer) => put(&transaction, LAYERS, id.as_str(), layer)?,
                Edit::DropImage(id) => remove(&transaction, IMAGES, id.as_str())?,
                Edit::DropName(name) => remove(&transaction, NAMES, name)?,
                Edit::DropLayer(id) => remove(&transaction, LAYERS, id.as_str())?,
            }
        }
        transaction.commit().map_err(fail("commit"))
    }

    fn rows<T: DeserializeOwned>(&self, table: Table) -> Result<BTreeMap<String, T>> {
        let transaction = self.0.begin_read().map_err(fail("read"))?;
        let table = transaction.open_table(table).map_err(fail("read"))?;
        let mut rows = BTreeMap::new();
        for row in table.iter().map_err(fail("read"))? {
            let (key, value) = row.map_err(fail("read"))?;
            let key = key.value().to_owned();
            match serde_json::from_slice(value.value()) {
                Ok(value) => {
                    rows.insert(key, value);
                }
                Err(error) => tracing::warn!(key, %error, "unreadable row of the image database"),
            }
        }
        Ok(rows)
    }
}

fn create(path: &Path) -> Result<redb::Database> {
    let begun = Instant::now();
    loop {
        let opened = redb::Database::builder().set_cache_size(CACHE).create(path);
        match opened {
            Err(redb::DatabaseError::DatabaseAlreadyOpen) if begun.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => {
                return Err(Error::Database {
                    what: "open",
                    why: format!("{} is in use by another daemon", path.display()),
                });
            }
            other => return other.map_err(fail("open")),
        }
    }
}

fn put<T: Serialize>(to: &WriteTransaction, table: Table, key: &str, value: &T) -> Result<()> {
    let value = serde_json::to_vec(value).map_err(fail("write"))?;
    let mut table = to.open_table(table).map_err(fail("write"))?;
    table.insert(key, value.as_slice()).map_err(fail("write"))?;
    Ok(())
}

fn remove(from: &WriteTransaction, table: Table, key: &str) -> Result<()> {
    let mut table = from.open_table(table).map_err(fail("write"))?;
    table.remove(key).map_err(fail("write"))?;
    Ok(())
}

fn by_digest<T>(rows: BTreeMap<String, T>) -> BTreeMap<Digest, T> {
    rows.into_iter()
        .filter_map(|(key, value)| Some((Digest::parse(&key).ok()?, value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_outlive_the_process_and_are_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("images.redb");
        let id = Digest::sha256([1; 32]);
        let layer = LayerRecord {
            bytes: 5,
            inodes: 1,
            unsynced_boot: Some("b".into()),
        };
        let database = Database::open(&path).unwrap();
        database
            .apply(&[
                Edit::PutName("r.io/a:1".into(), id.clone()),
                Edit::PutName("r.io/b:1".into(), id.clone()),
                Edit::PutLayer(id.clone(), layer.clone()),
                Edit::DropName("r.io/b:1".into()),
            ])
            .unwrap();
        drop(database);
        let saved = Database::open(&path).unwrap().load().unwrap();
        assert_eq!(
            saved.names,
            BTreeMap::from([("r.io/a:1".to_owned(), id.clone())])
        );
        assert_eq!(saved.layers, BTreeMap::from([(id, layer)]));
        assert!(saved.images.is_empty());
    }

    #[test]
    fn newer_versions_are_refused_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("images.redb");
        let raw = redb::Database::create(&path).unwrap();
        let transaction = raw.begin_write().unwrap();
        transaction
            .open_table(META)
            .unwrap()
            .insert("version", 9)
            .unwrap();
        transaction.commit().unwrap();
        drop(raw);
        let error = Database::open(&path).unwrap_err().to_string();
        assert!(error.contains("version 9"), "{error}");
    }
}
