//! Connections to ports of a pod, as port-forward makes them: to the pod's loopback, from inside its
//! network namespace. A program that listens there alone is reached too, and no rule of the pod
//! network stands in the way. So is one that listens at an address of the pod alone, in the second
//! place.
//!
//! A socket belongs to the network namespace of the thread that made it, for its whole life. So only
//! its making needs a thread inside the pod; the wait for an answer needs none.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use crisp_model::{NamespaceMode, PodId, PodPhase};
use crisp_sys::ns;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::view::PodView;

/// How long a pod may take to accept or refuse a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// The addresses that are tried first, in this order: a program may listen on one of them alone.
const LOOPBACK: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

/// The network namespace of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// The node's, which is the daemon's own.
    Node,
    /// Pinned to a file.
    Pin(PathBuf),
}

impl Place {
    fn of(pod: &PodView) -> Result<Self> {
        let (name, id) = (&pod.config.name, &pod.id);
        let wish = || format!("cannot forward ports of pod {name} ({id})");
        if pod.phase != PodPhase::Ready {
            let why = format!("{}: it is not ready", wish());
            return Err(Error::FailedPrecondition(why));
        }
        match (&pod.config.namespaces.network, &pod.netns) {
            (NamespaceMode::Node, _) => Ok(Self::Node),
            (_, Some(pin)) => Ok(Self::Pin(pin.clone())),
            (_, None) => {
                let why = format!("{}: its network namespace is gone", wish());
                Err(Error::FailedPrecondition(why))
            }
        }
    }

    /// A socket of this namespace. It blocks: entering a namespace waits for its lock.
    fn socket(&self, to: IpAddr) -> io::Result<OwnedFd> {
        let family = match to {
            IpAddr::V4(_) => AddressFamily::INET,
            IpAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let make = || socket_with(family, SocketType::STREAM, flags, None);
        let made = match self {
            Self::Node => make(),
            Self::Pin(pin) => ns::in_network(File::open(pin)?.as_fd(), make)?,
        };
        Ok(made?)
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let (place, address) = (self.clone(), to.ip());
        let made = crisp_tasks::blocking(move || place.socket(address)).await;
        let socket = made.map_err(io::Error::other)??;
        let socket = TcpSocket::from_std_stream(socket.into());
        // Small packets of one side are answered by the other: none waits for more to send.
        socket.set_nodelay(true)?;
        match timeout(CONNECT_WITHIN, socket.connect(to)).await {
            Ok(connected) => connected,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl Engine {
    /// The pod whose ports a caller may reach now.
    ///
    /// # Errors
    /// `NotFound` or `Ambiguous`; `FailedPrecondition` when it is not ready.
    pub fn check_ports(&self, pod: &str) -> Result<PodId> {
        let view = self.pod(pod)?;
        Place::of(&view)?;
        Ok(view.id.clone())
    }

    /// Connects to a port of a pod, from inside.
    ///
    /// # Errors
    /// As [`Engine::check_ports`], and `Unavailable` when nothing there accepts.
    pub async fn connect(&self, pod: &PodId, port: u16) -> Result<TcpStream> {
        let view = self.pod(pod.as_str())?;
        let place = Place::of(&view)?;
        let mut reasons = Vec::new();
        for address in LOOPBACK.iter().chain(&view.ips) {
            match place.connect((*address, port).into()).await {
                Ok(stream) => return Ok(stream),
                Err(error) => reasons.push(format!("{address}: {}", reason(&error))),
            }
        }
        let name = &view.config.name;
        let reasons = reasons.join("; ");
        let why = format!("cannot connect to port {port} in pod {name}: {reasons}");
        Err(Error::Unavailable(why))
    }

    /// Returns once a pod is stopped: its containers have ended and its network is gone. A connection
    /// into it is to be closed then, since its socket would keep the pod's network namespace; until
    /// then it may have something to say.
    pub async fn until_stopped(&self, pod: &PodId) {
        let mut events = self.events();
        loop {
            // Looked at after events are listened to, so that none is missed in between.
            let view = self.pod(pod.as_str());
            if view.map_or(true, |view| view.phase == PodPhase::NotReady) {
                return;
            }
            loop {
                match events.next().await {
                    Ok(Some(event)) if event.pod_id() != pod => {}
                    Ok(None) => return,
                    Ok(Some(_)) | Err(_) => break,
                }
            }
        }
    }
}

/// The reason in the words that users of port-forward know.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::TimedOut => format!("no answer within {} s", CONNECT_WITHIN.as_secs()),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    use crisp_sys::ns::Kind;

    #[tokio::test]
    async fn privileged_a_socket_belongs_to_the_namespace_that_it_was_made_in() {
        let dir = tempfile::tempdir().unwrap();
        let pin = dir.path().join("net");
        let listen = || {
            ns::raise_loopback()?;
            TcpListener::bind("127.0.0.1:0")
        };
        let listener = ns::pin_with(&[(Kind::Net, pin.clone())], listen).unwrap();
        let to = listener.local_addr().unwrap();
        let inside = Place::Pin(pin.clone()).connect(to).await;
        let refused = Place::Pin(pin.clone())
            .connect(SocketAddr::new(to.ip(), 1))
            .await;
        ns::unpin(&pin).unwrap();
        let connected = inside.unwrap();
        let (_, peer) = listener.accept().unwrap();
        assert_eq!(connected.local_addr().unwrap(), peer);
        assert_eq!(reason(&refused.unwrap_err()), "connection refused");
        let gone = Place::Pin(pin).connect(to).await.unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }
}
