//! A mix: several cases in one bundle, chosen by a generator with a fixed seed.

use crate::case::Case;

/// A linear congruential generator (Knuth's MMIX): the same choices on every machine.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

/// How many mixes `CRISP_DIFFERENTIAL` asks for.
pub fn asked() -> Option<usize> {
    let number = std::env::var("CRISP_DIFFERENTIAL").ok()?;
    Some(number.parse().expect("CRISP_DIFFERENTIAL is a number"))
}

/// The first `count` mixes of the cases that fit into one.
pub fn of(cases: &[Case], count: usize) -> Vec<Case> {
    let plain: Vec<&Case> = cases.iter().filter(|case| case.is_plain()).collect();
    let mut dice = Dice(20_260_413);
    (0..count)
        .map(|_| {
            let parts = 2 + dice.below(4);
            let mut mix = plain[dice.below(plain.len())].clone();
            for _ in 1..parts {
                let next = plain[dice.below(plain.len())];
                // Two preparations would be in each other's way.
                let fits = mix.prepare.trim().is_empty() || next.prepare.is_empty();
                if fits && !mix.names.contains(&next.names[0]) {
                    mix = mix.and(next);
                }
            }
            mix
        })
        .collect()
}
