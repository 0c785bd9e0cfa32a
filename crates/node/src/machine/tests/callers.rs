//! The calls that callers make of the pod in the world, and what becomes of its record.

use crisp_model::{CgroupPath, Timestamp};

use super::sample::{config, container_id};
use super::world::{Disk, World};
use crate::error::{Error, Result};
use crate::machine::facts::Caller;
use crate::machine::input::{ContainerInput, Fresh, Input};

impl World {
    pub(super) fn create(&mut self, number: u8) -> Caller {
        let caller = self.caller();
        let fresh = Fresh {
            id: container_id(number),
            created_at: Timestamp(2),
            cgroup_path: CgroupPath::parse(&format!("crisp/{number}")).unwrap(),
        };
        let config = Box::new(config(number));
        self.happen(Input::Create {
            config,
            fresh,
            caller,
        });
        caller
    }

    pub(super) fn ask(
        &mut self,
        number: u8,
        event: impl FnOnce(Caller) -> ContainerInput,
    ) -> Caller {
        let caller = self.caller();
        self.happen(Input::of(&container_id(number), event(caller)));
        caller
    }

    pub(super) fn stop_pod(&mut self) -> Caller {
        let caller = self.caller();
        self.happen(Input::Stop { caller });
        caller
    }

    pub(super) fn remove_pod(&mut self) -> Caller {
        let caller = self.caller();
        self.happen(Input::Remove { caller });
        caller
    }

    /// Removes the pod's record, the last that it has.
    pub(super) fn forget(&mut self) -> Result<()> {
        let things = &self.things;
        assert!(things.is_empty(), "left without a record: {things:?}");
        if self.disk == Disk::KeepsRecords {
            return Err(Error::Unavailable("no luck".to_owned()));
        }
        self.has_record = false;
        Ok(())
    }
}
