//! Making a container: what `create` and `run` share.

use std::path::PathBuf;

use crisp_runtime::{CreateRequest, Created, Gate, Keyring, RootBy, Rootfs};
use crisp_sys::cgroup::Cgroup;
use crisp_sys::process::ProcessId;
use crisp_sys::socket::Listener;

use crate::arguments::Making;
use crate::bundle::Bundle;
use crate::delete::{poststop, tear_down};
use crate::failure::{Context, Failure, Result};
use crate::invocation::Invocation;
use crate::output;
use crate::plumbing::{Attendance, Streams, own_identity};
use crate::readiness;
use crate::record::{Id, Record};
use crate::scope::{self, Tenant};
use crate::status::{State, Status, layout};

/// How the container will be told to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// By a later command.
    Later,
    /// By this one.
    Now,
}

/// A container that waits for its start.
#[derive(Debug)]
pub(crate) struct Made {
    pub id: Id,
    pub record: Record,
    pub cgroup: Cgroup,
    pub created: Created,
}

/// Makes a container. Everything that can be checked is checked before anything is made; what
/// was made is gone again when something fails.
pub(crate) fn make(
    invocation: &Invocation,
    making: &Making,
    start: Start,
    attendance: Attendance,
) -> Result<Made> {
    let id = Id::parse(&making.id)?;
    let mut bundle = Bundle::open(&making.bundle, &id, invocation.made_by)?;
    for warning in &bundle.warnings {
        invocation.journal.warning(warning);
    }
    let streams = Streams::check(&making.plumbing, bundle.terminal(), attendance)?;
    streams.announce(&mut bundle.spec);
    readiness::offer(&mut bundle.spec, &invocation.store.notify(&id));
    let cgroup = Cgroup::new(layout()?, &bundle.cgroup);
    invocation.store.claim(&id)?;
    let made = Maker {
        invocation,
        keyring: if making.no_new_keyring {
            Keyring::Callers
        } else {
            Keyring::Named(format!("_ses.{}", id.as_str()))
        },
        root_by: match making.no_pivot {
            true => RootBy::Move,
            false => RootBy::Pivot,
        },
        id: &id,
        cgroup: &cgroup,
    }
    .make(bundle, start, &streams);
    if made.is_err() {
        // The first error is the one to tell; delete tries again.
        drop(invocation.store.remove(&id));
    }
    let (record, created) = made?;
    Ok(Made {
        id,
        record,
        cgroup,
        created,
    })
}

struct Maker<'a> {
    invocation: &'a Invocation,
    keyring: Keyring,
    root_by: RootBy,
    id: &'a Id,
    cgroup: &'a Cgroup,
}

impl Maker<'_> {
    fn make(
        &self,
        bundle: Bundle,
        start: Start,
        streams: &Streams<'_>,
    ) -> Result<(Record, Created)> {
        // Before there is a record: whoever deletes it kills what is in the cgroup.
        if self
            .cgroup
            .is_populated()
            .context(|| "look at the cgroup")?
        {
            let why = format!("the cgroup {} holds processes already", self.cgroup.path());
            return Err(Failure::Refused(why));
        }
        let store = &self.invocation.store;
        let mut record = Record::new(self.id, own_identity()?, bundle.spec);
        record.bundle = bundle.dir;
        record.rootfs = bundle.rootfs;
        record.cgroup = bundle.cgroup;
        record.unit = bundle.unit;
        record.keyring = self.keyring.clone();
        // Before anything else is made, so that a delete finds it.
        store.save(self.id, &record)?;
        readiness::make_dir(&store.notify(self.id))?;
        match self.bring_up(&mut record, start, streams) {
            Ok(created) => Ok((record, created)),
            Err(error) => {
                if error.undid() {
                    self.tell_of_end(&record)?;
                }
                Err(error)
            }
        }
    }

    /// Runs the hooks of a container that came to nothing, as those of one that is deleted.
    fn tell_of_end(&self, record: &Record) -> Result<()> {
        // The first error is the one to tell; delete tries again.
        drop(self.invocation.store.remove(self.id));
        let state = State::of(record, Status::Stopped, None);
        poststop(self.invocation, record, &output::json(&state)?);
        Ok(())
    }

    fn bring_up(
        &self,
        record: &mut Record,
        start: Start,
        streams: &Streams<'_>,
    ) -> Result<Created> {
        let store = &self.invocation.store;
        let mut created = self.create(record, start, streams)?;
        for warning in &created.warnings {
            self.invocation.journal.warning(warning);
        }
        let settled = ProcessId::of(created.pid)
            .context(|| "identify the container's init")
            .and_then(|init| {
                record.init = Some(init);
                store.save(self.id, record)
            })
            .and_then(|()| streams.hand_out(created.pid, &created.pidfd, &mut created.console));
        match settled {
            Ok(()) => Ok(created),
            Err(error) => {
                drop(tear_down(record, self.cgroup));
                Err(error)
            }
        }
    }

    /// Creates it, where systemd makes its cgroup in a scope that is there already.
    fn create(&self, record: &Record, start: Start, streams: &Streams<'_>) -> Result<Created> {
        let Some(unit) = &record.unit else {
            return self.create_in(record, start, (streams, None));
        };
        let tenant = Tenant::in_scope(unit, scope::properties(&record.spec)?)?;
        let created = self.create_in(record, start, (streams, Some(tenant.pid())));
        let left = tenant.leave();
        if created.is_err() {
            // The first error is the one to tell.
            drop(unit.stop());
        }
        let created = created?;
        match left {
            Ok(()) => Ok(created),
            Err(error) => {
                drop(tear_down(record, self.cgroup));
                Err(error)
            }
        }
    }

    fn create_in(
        &self,
        record: &Record,
        start: Start,
        (streams, tenant): (&Streams<'_>, Option<i32>),
    ) -> Result<Created> {
        let gate: PathBuf = self.invocation.store.gate(self.id);
        let gate = match start {
            Start::Now => Gate::Socket,
            Start::Later => {
                Gate::Listening(Listener::bind(&gate).context(|| "make the container's gate")?)
            }
        };
        let created = crisp_runtime::create(CreateRequest {
            root_by: self.root_by,
            tenant,
            ahead: crisp_runtime::Ahead::default(),
            raw_environment: Vec::new(),
            id: self.id.as_str(),
            bundle: &record.bundle,
            spec: &record.spec,
            rootfs: Rootfs::Dir(record.rootfs.clone()),
            cgroup: self.cgroup,
            stdio: streams.stdio(),
            gate,
            keyring: record.keyring.clone(),
            preserved_fds: streams.preserved(),
        })?;
        Ok(created)
    }
}
