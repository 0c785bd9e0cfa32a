//! The frames that a shim takes before it owns a container.

use crate::{Adoption, Ahead, Launch, Result, frame};

/// A frame that comes before any request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// The container is not to be started yet.
    Ahead(Ahead),
    /// The container is to be started.
    Launch(Box<Launch>),
    /// A container that runs is to be taken over. A shim of an earlier version refuses this frame:
    /// it is no launch.
    Adoption(Box<Adoption>),
}

impl Opening {
    /// Reads a frame.
    ///
    /// # Errors
    /// When it is none of them; the error says why it is no launch.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let why = match Launch::decode(bytes) {
            Ok(launch) => return Ok(Self::Launch(Box::new(launch))),
            Err(why) => why,
        };
        if let Ok(adoption) = Adoption::decode(bytes) {
            return Ok(Self::Adoption(Box::new(adoption)));
        }
        let ahead = frame::decode("ahead", bytes);
        ahead.map(Self::Ahead).map_err(|_| why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{RootfsSpec, Stdin, StreamEnd, VERSION};
    use crisp_model::{CgroupPath, ContainerId, PodId};

    fn launch() -> Launch {
        Launch {
            version: VERSION,
            container_id: ContainerId::from_entropy([1; 32]),
            pod_id: PodId::from_entropy([2; 32]),
            bundle: "/b".into(),
            rootfs: RootfsSpec::Dir("/r".into()),
            cgroup_path: CgroupPath::parse("c").unwrap(),
            socket: "/s".into(),
            log: None,
            exit_file: "/e".into(),
            stdin: Stdin::Null,
            open_files: None,
            shims_cgroup: None,
        }
    }

    #[test]
    fn no_opening_is_taken_for_another() {
        let launch = launch();
        let adoption = Adoption {
            launch: launch.clone(),
            pid: 7,
            start_time: 9,
            streams: vec![StreamEnd::Output, StreamEnd::Errors],
        };
        let bytes = adoption.encode().unwrap();
        // A shim of an earlier version reads only launches, and must not start a second container.
        assert!(Launch::decode(&bytes).is_err());
        let opening = Opening::decode(&bytes).unwrap();
        assert_eq!(opening, Opening::Adoption(Box::new(adoption)));
        let ahead = Ahead {
            ahead_of: launch.container_id.clone(),
            rootfs: launch.rootfs.clone(),
            bundle: None,
            shims_cgroup: None,
        };
        let opening = Opening::decode(&ahead.encode().unwrap()).unwrap();
        assert_eq!(opening, Opening::Ahead(ahead));
        let bytes = launch.encode().unwrap();
        let opening = Opening::decode(&bytes).unwrap();
        assert_eq!(opening, Opening::Launch(Box::new(launch)));
        let refused = Opening::decode(b"{}").unwrap_err().to_string();
        assert!(refused.contains("bad launch frame"), "{refused}");
    }
}
