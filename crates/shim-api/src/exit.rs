//! The exit slot: how a container ended, written once by its shim before it tells anyone. Until then
//! it tells whether the container's program was let run: what has run is never started again.

use crisp_model::{ExitStatus, Timestamp};
use serde::{Deserialize, Serialize};

/// Size of an exit slot on disk, bytes.
pub const SLOT_SIZE: usize = 64;

const MAGIC: [u8; 8] = *b"crispex1";
/// The kind of a slot that tells of a begin, where others tell of an end.
const BEGUN: u8 = 4;

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
        let time = self.finished_at.0.to_le_bytes();
        written([kind, u8::from(self.oom)], value, time)
    }

    /// Reads a slot; `None` when it was never or only partly written.
    #[must_use]
    pub fn from_slot(slot: &[u8]) -> Option<Self> {
        let body = sound(slot)?;
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

/// The init of a container whose program was let run, and of whose end no slot tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BeginRecord {
    /// Its id.
    pub pid: i32,
    /// When it was started, as the kernel counts.
    pub start_time: u64,
}

impl BeginRecord {
    /// The slot of a container whose program is let run now.
    #[must_use]
    pub fn to_slot(&self) -> [u8; SLOT_SIZE] {
        written([BEGUN, 0], self.pid, self.start_time.to_le_bytes())
    }

    /// Reads a slot; `None` when it tells of no begin, or of an end already.
    #[must_use]
    pub fn from_slot(slot: &[u8]) -> Option<Self> {
        let body = sound(slot).filter(|body| body[8] == BEGUN)?;
        Some(Self {
            pid: i32::from_le_bytes(body[12..16].try_into().ok()?),
            start_time: u64::from_le_bytes(body[16..24].try_into().ok()?),
        })
    }
}

/// Magic, two bytes of flags, a number, a time, zeros, checksum of all before it.
fn written(flags: [u8; 2], value: i32, time: [u8; 8]) -> [u8; SLOT_SIZE] {
    let mut slot = [0; SLOT_SIZE];
    slot[..8].copy_from_slice(&MAGIC);
    slot[8..10].copy_from_slice(&flags);
    slot[12..16].copy_from_slice(&value.to_le_bytes());
    slot[16..24].copy_from_slice(&time);
    let sum = checksum(&slot[..SLOT_SIZE - 8]);
    slot[SLOT_SIZE - 8..].copy_from_slice(&sum.to_le_bytes());
    slot
}

/// A slot without its checksum, if that is right.
fn sound(slot: &[u8]) -> Option<&[u8]> {
    let (body, sum) = slot.get(..SLOT_SIZE)?.split_at(SLOT_SIZE - 8);
    let is_sound = checksum(body).to_le_bytes() == sum && body[..8] == MAGIC;
    is_sound.then_some(body)
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

    #[test]
    fn a_begin_is_no_end() {
        let begin = BeginRecord {
            pid: 77,
            start_time: 1 << 40,
        };
        let slot = begin.to_slot();
        assert_eq!(BeginRecord::from_slot(&slot), Some(begin));
        assert_eq!(ExitRecord::from_slot(&slot), None);
        let end = ExitRecord {
            status: ExitStatus::Lost,
            finished_at: Timestamp(1),
            oom: false,
        };
        assert_eq!(BeginRecord::from_slot(&end.to_slot()), None);
        assert_eq!(BeginRecord::from_slot(&[0; SLOT_SIZE]), None);
    }
}
