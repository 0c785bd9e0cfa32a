//! Releases the addresses of a detached pod once its link is gone.
//!
//! A veth ends with the pod's network namespace, a little after the last reference to that is
//! closed. Until then the address is still on the wire, and another pod must not get it. So a DEL
//! leaves a lease here, and the worker of [`AddressRelease::run`] releases the address when the
//! kernel says that the link was deleted (`RTM_DELLINK`). A link that stays for three seconds is
//! deleted: then somebody else holds the namespace. At the end of the daemon it is deleted sooner, as the
//! bridge and the firewall table cannot go before it.
//!
//! No deletion is missed. The worker subscribes to the kernel's notifications first and looks for
//! the links afterwards, and it looks for all of them again when the kernel had to drop
//! notifications (`ENOBUFS`). It is subscribed only while a lease waits, so that the many
//! notifications of starting pods wake nobody.
//!
//! The plugin program `crisp-cni` has no worker: its DEL deletes the link at once, and leaves no
//! lease.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crisp_tasks::{Worker, blocking};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{MulticastGroup, new_multicast_connection};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::addresses::Addresses;
use super::sockets::Sockets;
use super::source_check;
use crate::error::{Context, Result};
use crate::netlink::link::{self, Link};
use crate::netlink::{Batch, Channel};
use crate::subnet::Subnet;

/// How long a link may stay after its pod was detached.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a link may stay when the daemon ends, which has less time than that.
const HASTE: Duration = Duration::from_millis(150);
/// Pause after a subscription that failed.
const RETRY: Duration = Duration::from_millis(500);
/// More links than this are looked for by one dump of all links.
const FEW: usize = 4;

/// The addresses that an owner has from one bridge.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lease {
    pub addresses: Addresses,
    pub owner: String,
    pub bridge: String,
    pub subnets: Vec<Subnet>,
}

/// A lease whose link may still exist.
#[derive(Debug, Clone)]
struct Waiting {
    /// Tells this DEL from a later one of the same owner.
    serial: u64,
    link: String,
    /// The link's index, once it was seen after the DEL. Indexes are not used twice, so that a
    /// notification about a former link of the same name never releases the address of this one.
    index: Option<u32>,
    deadline: Instant,
}

#[derive(Debug, Default)]
struct Leases {
    waiting: BTreeMap<Lease, Waiting>,
    last_serial: u64,
}

/// The leases of detached pods.
#[derive(Debug, Default)]
pub(crate) struct AddressRelease {
    leases: Mutex<Leases>,
    /// Held while an address goes, and while records are compared with the kernel. It is taken
    /// ahead of `leases`, which is never held for so long.
    comparison: Mutex<()>,
    /// A lease was added.
    added: Notify,
    /// A lease was released.
    released: Condvar,
}

/// Which links are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Attachments that were not seen since their DEL.
    Unseen,
    All,
}

impl AddressRelease {
    fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(&self) -> MutexGuard<'_, ()> {
        self.comparison
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the addresses of an owner that is attached anew.
    pub(crate) fn cancel(&self, lease: &Lease) {
        self.leases().waiting.remove(lease);
    }

    /// Runs a look at the addresses that compares them with the kernel. No address is released
    /// meanwhile: what was forgotten for it in the kernel would come back from its record.
    pub(crate) fn while_none_goes<T>(&self, look: impl FnOnce() -> T) -> T {
        let _held = self.hold();
        look()
    }

    /// Releases the lease once the link is gone.
    pub(crate) fn release_after(&self, lease: Lease, link: String) {
        let mut leases = self.leases();
        leases.last_serial += 1;
        let waiting = Waiting {
            serial: leases.last_serial,
            link,
            index: None,
            deadline: Instant::now() + PATIENCE,
        };
        leases.waiting.insert(lease, waiting);
        drop(leases);
        self.added.notify_one();
    }

    /// Waits until no lease waits, at most as long as a link may stay. Blocks the thread.
    ///
    /// Links that stay are deleted soon. A namespace that no process holds may still be there for
    /// minutes, for the kernel keeps it until the last connection of a killed process was given up.
    pub(crate) fn finish(&self) {
        let soon = Instant::now() + HASTE;
        for waiting in self.leases().waiting.values_mut() {
            waiting.deadline = waiting.deadline.min(soon);
        }
        self.added.notify_one();
        let limit = PATIENCE + RETRY;
        let waits = |leases: &mut Leases| !leases.waiting.is_empty();
        drop(
            self.released
                .wait_timeout_while(self.leases(), limit, waits),
        );
    }

    fn is_idle(&self) -> bool {
        self.leases().waiting.is_empty()
    }

    /// Serves leases until the worker that runs this is ended by its owner.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            self.added.notified().await;
            while !self.is_idle() {
                if let Err(error) = self.serve().await {
                    tracing::warn!(%error, "links are not watched: addresses of detached pods are released late");
                    sleep(RETRY).await;
                }
            }
        }
    }

    /// Subscribes, and serves until no lease waits.
    async fn serve(self: &Arc<Self>) -> Result<()> {
        let (connection, _handle, mut notifications) =
            new_multicast_connection(&[MulticastGroup::Link])
                .context(|| "subscribe to notifications about links")?;
        let _connection = Worker::start(connection);
        let sockets = Arc::new(Mutex::new(Sockets::open()?));
        self.look(&sockets, Look::All).await?;
        while !self.is_idle() {
            tokio::select! {
                notification = notifications.recv() => {
                    let (message, _) = notification
                        .map_err(|_closed| io::Error::from(io::ErrorKind::ConnectionAborted))
                        .context(|| "read notifications about links")?;
                    self.hear(&sockets, message).await?;
                }
                () = self.added.notified() => self.look(&sockets, Look::Unseen).await?,
                () = sleep_until(self.next_deadline()) => self.end_overdue(&sockets).await?,
            }
        }
        Ok(())
    }

    async fn hear(
        self: &Arc<Self>,
        sockets: &Arc<Mutex<Sockets>>,
        message: NetlinkMessage<RouteNetlinkMessage>,
    ) -> Result<()> {
        match message.payload {
            NetlinkPayload::Overrun(_) => self.look(sockets, Look::All).await,
            // A bridge tells with its own family that a port left it: the link still exists.
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link))
                if link.header.interface_family == AddressFamily::Unspec =>
            {
                self.release_deleted(sockets, link.header.index).await
            }
            _ => Ok(()),
        }
    }

    fn snapshot(&self, which: impl Fn(&Waiting) -> bool) -> Vec<(Lease, Waiting)> {
        let leases = self.leases();
        let chosen = leases.waiting.iter().filter(|(_, waiting)| which(waiting));
        chosen.map(|(l, w)| (l.clone(), w.clone())).collect()
    }

    fn next_deadline(&self) -> Instant {
        let leases = self.leases();
        let deadlines = leases.waiting.values().map(|waiting| waiting.deadline);
        deadlines.min().unwrap_or_else(Instant::now)
    }

    async fn release_deleted(
        self: &Arc<Self>,
        sockets: &Arc<Mutex<Sockets>>,
        index: u32,
    ) -> Result<()> {
        let gone = self.snapshot(|waiting| waiting.index == Some(index));
        if gone.is_empty() {
            return Ok(());
        }
        let (this, sockets) = (Arc::clone(self), Arc::clone(sockets));
        blocking(move || this.release_all(&gone, &mut lock(&sockets))).await?;
        Ok(())
    }

    /// Looks for links: notes their indexes, and releases the leases of those that are gone.
    async fn look(self: &Arc<Self>, sockets: &Arc<Mutex<Sockets>>, which: Look) -> Result<()> {
        let (this, sockets) = (Arc::clone(self), Arc::clone(sockets));
        blocking(move || {
            let sockets = &mut lock(&sockets);
            let channel = &mut sockets.route;
            let wanted = this.snapshot(|waiting| which == Look::All || waiting.index.is_none());
            // The kernel is asked without the lock: an ADD that cancels a lease never waits for it.
            let mut gone = Vec::new();
            let links = if wanted.len() > FEW {
                link::all(channel)?
            } else {
                by_names(channel, &wanted)?
            };
            for (lease, waiting) in wanted {
                match links.iter().find(|link| link.name == waiting.link) {
                    Some(link) => this.note(&lease, &waiting, link.index),
                    None => gone.push((lease, waiting)),
                }
            }
            this.release_all(&gone, sockets);
            Ok(())
        })
        .await?
    }

    /// Deletes the links of leases that waited too long, and looks whether they are gone.
    async fn end_overdue(self: &Arc<Self>, sockets: &Arc<Mutex<Sockets>>) -> Result<()> {
        let (this, own) = (Arc::clone(self), Arc::clone(sockets));
        blocking(move || {
            let now = Instant::now();
            let indexes: BTreeSet<u32> = this.postpone(now).into_iter().flatten().collect();
            let mut batch = Batch::default();
            for index in indexes {
                link::push_delete(&mut batch, index);
            }
            lock(&own).route.run(batch)
        })
        .await??;
        self.look(sockets, Look::All).await
    }

    /// Gives overdue leases another term, in case that their links cannot be deleted; the indexes
    /// of those links. An index that is noted here was seen after the DEL and before any new ADD of
    /// the owner: deleting it never hits a new link.
    fn postpone(&self, now: Instant) -> Vec<Option<u32>> {
        let mut leases = self.leases();
        let overdue = leases.waiting.values_mut().filter(|w| w.deadline <= now);
        overdue
            .map(|waiting| {
                waiting.deadline = now + PATIENCE;
                waiting.index
            })
            .collect()
    }

    fn note(&self, lease: &Lease, seen: &Waiting, index: u32) {
        if let Some(waiting) = self.leases().waiting.get_mut(lease)
            && waiting.serial == seen.serial
        {
            waiting.index = Some(index);
        }
    }

    /// Releases leases that are the same as when they were looked at. The lock is held meanwhile,
    /// so that an owner that is attached again either keeps its addresses or gets new ones.
    fn release_all(&self, gone: &[(Lease, Waiting)], sockets: &mut Sockets) {
        let _held = self.hold();
        let mut leases = self.leases();
        for (lease, seen) in gone {
            let same = |waiting: &Waiting| waiting.serial == seen.serial;
            if !leases.waiting.get(lease).is_some_and(same) {
                continue;
            }
            let own = (&lease.addresses, lease.owner.as_str());
            let forgotten = source_check::forget(sockets, (&lease.bridge, &lease.subnets), own);
            match forgotten.and_then(|()| lease.addresses.release(&lease.owner)) {
                Ok(()) => {
                    leases.waiting.remove(lease);
                }
                // The lease stays, and is tried again at its deadline.
                Err(error) => {
                    tracing::warn!(owner = %lease.owner, %error, "addresses of a detached pod not released yet");
                }
            }
        }
        self.released.notify_all();
    }
}

fn lock(sockets: &Mutex<Sockets>) -> MutexGuard<'_, Sockets> {
    sockets.lock().unwrap_or_else(PoisonError::into_inner)
}

fn by_names(channel: &mut Channel, wanted: &[(Lease, Waiting)]) -> Result<Vec<Link>> {
    let mut found = Vec::new();
    for (_, waiting) in wanted {
        found.extend(link::by_name(channel, &waiting.link)?);
    }
    Ok(found)
}
