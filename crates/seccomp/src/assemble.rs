//! Classic BPF, written from its end: whatever an instruction jumps to is there already.

use std::collections::HashMap;

use crate::Instruction;

pub(crate) const LD_ABS: u16 = 0x20;
pub(crate) const JA: u16 = 0x05;
pub(crate) const JEQ: u16 = 0x15;
pub(crate) const JGT: u16 = 0x25;
pub(crate) const JGE: u16 = 0x35;
pub(crate) const AND: u16 = 0x54;
pub(crate) const RET: u16 = 0x06;

/// A place in the program, counted from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label(usize);

/// A program under construction, last instruction first.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    reversed: Vec<Instruction>,
    returns: HashMap<u32, Label>,
}

impl Assembler {
    fn push(&mut self, code: u16, (jt, jf): (u8, u8), k: u32) -> Label {
        self.reversed.push(Instruction { code, jt, jf, k });
        Label(self.reversed.len())
    }

    /// How many instructions lie between the next one and the label.
    fn distance(&self, to: Label) -> usize {
        self.reversed.len() - to.0
    }

    /// The label itself, or a jump to it that is near.
    fn near(&mut self, label: Label, reserve: usize) -> Label {
        if self.distance(label) + reserve <= 255 {
            return label;
        }
        let far = u32::try_from(self.distance(label)).unwrap_or(u32::MAX);
        self.push(JA, (0, 0), far)
    }

    /// Ends the filter with a verdict.
    pub(crate) fn verdict(&mut self, action: u32) -> Label {
        // A second return costs no more than a jump to a far one.
        if let Some(label) = self
            .returns
            .get(&action)
            .filter(|l| self.distance(**l) < 250)
        {
            return *label;
        }
        let label = self.push(RET, (0, 0), action);
        self.returns.insert(action, label);
        label
    }

    /// Tests the accumulator and goes to one of two places.
    pub(crate) fn branch(&mut self, test: u16, k: u32, holds: Label, fails: Label) -> Label {
        let holds = self.near(holds, 1);
        let fails = self.near(fails, 0);
        let near = |to| u8::try_from(self.distance(to)).unwrap_or(u8::MAX);
        let jumps = (near(holds), near(fails));
        self.push(test, jumps, k)
    }

    /// Does something to the accumulator, then goes on at `next`.
    pub(crate) fn then(&mut self, code: u16, k: u32, next: Label) -> Label {
        if self.distance(next) > 0 {
            let far = u32::try_from(self.distance(next)).unwrap_or(u32::MAX);
            self.push(JA, (0, 0), far);
        }
        self.push(code, (0, 0), k)
    }

    /// The finished program, first instruction first.
    pub(crate) fn finish(mut self) -> Vec<Instruction> {
        self.reversed.reverse();
        self.reversed
    }
}
