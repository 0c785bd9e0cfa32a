//! The exit slot: how a container ended, written once by its shim before it tells anyone.

use crisp_model::{ExitStatus, Timestamp};
use serde::{Deserialize, Serialize};

/// Size of an exit slot on disk, bytes.
pub const SLOT_SIZE: usize = 64;

const MAGIC: [u8; 8] = *b"crispex1";

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Of its init process.
    pub status: ExitStatus,
    /// When.
    pub finished_at: Timestamp,
    /// Whether the OOM killer struck in its cgroup.
    pub oom: bool,
}

impl ExitRecord {
    /// The slot's bytes: magic, kind, value, time, OOM, zeros, checksum of all before it.
    #[must_use]
    pub fn to_slot(&self) -> [u8; SLOT_SIZE] {
        let (kind, value) = match self.status {
            ExitStatus::Code(code) => (1_u8, i32::from(code)),
            ExitStatus::Signal(signal) => (2, signal),
            ExitStatus::Lost => (3, 0),
        };
        let mut slot = [0; SLOT_SIZE];
        slot[..8].copy_from_slice(&MAGIC);
        slot[8] = kind;
        slot[9] = u8::from(self.oom);
        slot[12..16].copy_from_slice(&value.to_le_bytes());
        slot[16..24].copy_from_slice(&self.finished_at.0.to_le_bytes());
        let sum = checksum(&slot[..SLOT_SIZE - 8]);
        slot[SLOT_SIZE - 8..].copy_from_slice(&sum.to_le_bytes());
        slot
    }

    /// Reads a slot; `None` when it was never or only partly written.
    #[must_use]
    pub fn from_slot(slot: &[u8]) -> Option<Self> {
        let (body, sum) = slot.get(..SLOT_SIZE)?.split_at(SLOT_SIZE - 8);
        let sum_matches = checksum(body).to_le_bytes() == sum;
        if !sum_matches || body[..8] != MAGIC {
            return None;
        }
        let value = i32::from_le_bytes(body[12..16].try_into().ok()?);
        let status = match body[8] {
            1 => ExitStatus::Code(u8::try_from(value).ok()?),
            2 => ExitStatus::Signal(value),
            3 => ExitStatus::Lost,
            _ => return None,
        };
        let finished_at = Timestamp(i64::from_le_bytes(body[16..24].try_into().ok()?));
        Some(Self {
            status,
            finished_at,
            oom: body[9] == 1,
        })
    }
}

/// FNV-1a, 64 bits: torn writes are to be seen here, not attackers.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_whole_or_nothing() {
        for status in [
            ExitStatus::Code(0),
            ExitStatus::Code(255),
            ExitStatus::Signal(9),
        ] {
            let record = ExitRecord {
                status,
                finished_at: Timestamp(12),
                oom: true,
            };
            let slot = record.to_slot();
            assert_eq!(ExitRecord::from_slot(&slot), Some(record));
            for cut in 0..SLOT_SIZE {
                let mut torn = slot;
                torn[cut..].fill(0);
                assert!(
                    torn == slot || ExitRecord::from_slot(&torn).is_none(),
                    "cut at {cut}"
                );
                assert_eq!(ExitRecord::from_slot(&slot[..cut]), None);
            }
        }
        assert_eq!(ExitRecord::from_slot(&[0; SLOT_SIZE]), None);
    }
}
