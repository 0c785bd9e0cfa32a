//! A machine for classic BPF as the kernel runs it on a system call: tests run filters on it.

use crate::Instruction;

const LD_ABS: u16 = 0x20;
const LD_IMM: u16 = 0x00;
const RET: u16 = 0x06;

/// `struct seccomp_data` of linux/seccomp.h.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) arch: u32,
    pub(crate) number: u32,
    pub(crate) arguments: [u64; 6],
}

impl Call {
    /// The 32-bit word at an offset; the order of bytes is the least significant first.
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.arch,
            16..64 => {
                let argument = self.arguments[((offset - 16) / 8) as usize];
                let half = argument >> (offset % 8 * 8);
                u32::try_from(half & 0xffff_ffff).unwrap()
            }
            other => panic!("a filter reads {other}"),
        }
    }
}

/// The verdict of a filter.
pub(crate) fn run(program: &[Instruction], call: &Call) -> u32 {
    let (mut a, mut at) = (0_u32, 0_usize);
    loop {
        let i = program[at];
        at += 1;
        let mut jump = |holds: bool| at += usize::from(if holds { i.jt } else { i.jf });
        match i.code {
            LD_ABS => a = call.word(i.k),
            LD_IMM => a = i.k,
            0x54 => a &= i.k,
            0x05 => at += i.k as usize,
            0x15 => jump(a == i.k),
            0x25 => jump(a > i.k),
            0x35 => jump(a >= i.k),
            RET => return i.k,
            other => panic!("{other:#x}"),
        }
    }
}
