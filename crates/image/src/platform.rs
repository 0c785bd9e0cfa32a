//! Which of an index's images runs here: containerd's rules for architectures and variants.

use serde::Deserialize;

/// A platform as indexes and configs write it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Platform {
    pub(crate) os: String,
    pub(crate) architecture: String,
    pub(crate) variant: Option<String>,
}

/// The platforms that this machine runs, best first.
#[derive(Debug, Clone)]
pub(crate) struct Runnable(Vec<(&'static str, &'static str)>);

impl Runnable {
    /// The platforms of the CPU under us.
    pub(crate) fn here() -> Self {
        Self::of(std::env::consts::ARCH, cpu_level())
    }

    /// The platforms of a machine; `level` is the x86-64 microarchitecture level.
    fn of(machine: &str, level: usize) -> Self {
        const AMD64: [(&str, &str); 4] = [
            ("amd64", "v4"),
            ("amd64", "v3"),
            ("amd64", "v2"),
            ("amd64", "v1"),
        ];
        const ARM: [(&str, &str); 4] = [("arm", "v8"), ("arm", "v7"), ("arm", "v6"), ("arm", "v5")];
        let mut list = Vec::new();
        match machine {
            "x86_64" => {
                list.extend(AMD64.iter().skip(AMD64.len() - level.clamp(1, 4)));
                list.push(("386", ""));
            }
            "aarch64" => {
                list.push(("arm64", "v8"));
                list.extend(ARM);
            }
            "arm" => list.extend(ARM.iter().skip(1)),
            "riscv64" => list.push(("riscv64", "")),
            "powerpc64" => list.push(("ppc64le", "")),
            "s390x" => list.push(("s390x", "")),
            _ => {}
        }
        Self(list)
    }

    /// How well a platform suits: 0 is best, `None` is not at all.
    pub(crate) fn rank(&self, platform: &Platform) -> Option<usize> {
        if !platform.os.eq_ignore_ascii_case("linux") {
            return None;
        }
        let (architecture, variant) = normal(platform);
        self.0
            .iter()
            .position(|(a, v)| *a == architecture && *v == variant)
    }

    /// The best platform, as messages name it.
    pub(crate) fn name(&self) -> String {
        let best = self
            .0
            .iter()
            .find(|(_, variant)| *variant == "v1" || *variant == "v8");
        let best = best.or(self.0.first()).map_or("", |(a, _)| a);
        format!("linux/{best}")
    }
}

/// Architecture and variant in one spelling: Go's names, and the variant that none stands for.
fn normal(platform: &Platform) -> (String, String) {
    let variant = platform
        .variant
        .as_deref()
        .unwrap_or("")
        .to_ascii_lowercase();
    let architecture = platform.architecture.to_ascii_lowercase();
    let (architecture, implied) = match architecture.as_str() {
        "amd64" | "x86_64" | "x86-64" => ("amd64", "v1"),
        "386" | "i386" => return ("386".to_owned(), String::new()),
        "arm64" | "aarch64" => ("arm64", "v8"),
        "armhf" => ("arm", "v7"),
        "armel" => ("arm", "v6"),
        "arm" => ("arm", "v7"),
        other => (other, ""),
    };
    let variant = match variant.as_str() {
        "" => implied,
        digits @ ("1" | "2" | "3" | "4" | "5" | "6" | "7" | "8") => {
            return (architecture.to_owned(), format!("v{digits}"));
        }
        other => other,
    };
    (architecture.to_owned(), variant.to_owned())
}

/// The x86-64 microarchitecture level of this CPU, 1 to 4; 1 elsewhere.
fn cpu_level() -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        let v2 = has!("cmpxchg16b") && has!("popcnt") && has!("sse4.2") && has!("ssse3");
        let v3 = v2
            && has!("avx2")
            && has!("bmi1")
            && has!("bmi2")
            && has!("f16c")
            && has!("fma")
            && has!("lzcnt")
            && has!("movbe");
        let v4 = v3
            && has!("avx512f")
            && has!("avx512bw")
            && has!("avx512cd")
            && has!("avx512dq")
            && has!("avx512vl");
        1 + [v2, v3, v4].into_iter().filter(|level| *level).count()
    }
    #[cfg(not(target_arch = "x86_64"))]
    1
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant.as_deref() {
            Some(variant) if !variant.is_empty() => write!(f, "/{variant}"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/').map(str::to_owned);
        Platform {
            os: parts.next().unwrap(),
            architecture: parts.next().unwrap(),
            variant: parts.next(),
        }
    }

    #[test]
    fn the_best_runnable_platform_is_first() {
        let cases: [(&str, usize, &[&str], Option<&str>); 12] = [
            (
                "x86_64",
                1,
                &["linux/arm64", "linux/amd64"],
                Some("linux/amd64"),
            ),
            (
                "x86_64",
                3,
                &["linux/amd64", "linux/amd64/v3"],
                Some("linux/amd64/v3"),
            ),
            (
                "x86_64",
                2,
                &["linux/amd64/v3", "linux/amd64"],
                Some("linux/amd64"),
            ),
            (
                "x86_64",
                1,
                &["linux/386", "linux/amd64/v1"],
                Some("linux/amd64/v1"),
            ),
            ("x86_64", 1, &["linux/386"], Some("linux/386")),
            ("x86_64", 1, &["linux/amd64/v2"], None),
            ("x86_64", 4, &["windows/amd64", "unknown/unknown"], None),
            (
                "aarch64",
                1,
                &["linux/arm/v7", "linux/arm64"],
                Some("linux/arm64"),
            ),
            (
                "aarch64",
                1,
                &["linux/arm/v6", "linux/arm"],
                Some("linux/arm"),
            ),
            ("aarch64", 1, &["linux/arm64/v8"], Some("linux/arm64/v8")),
            ("aarch64", 1, &["linux/aarch64/8"], Some("linux/aarch64/8")),
            ("aarch64", 1, &["linux/arm64/v9"], None),
        ];
        for (machine, level, offered, expected) in cases {
            let runnable = Runnable::of(machine, level);
            let best = offered
                .iter()
                .filter_map(|text| Some((runnable.rank(&platform(text))?, *text)))
                .min();
            assert_eq!(
                best.map(|(_, text)| text),
                expected,
                "{machine} {offered:?}"
            );
        }
    }

    #[test]
    fn this_machine_has_a_name() {
        assert_eq!(Runnable::of("x86_64", 4).name(), "linux/amd64");
        assert_eq!(Runnable::of("aarch64", 1).name(), "linux/arm64");
        assert!(!Runnable::here().0.is_empty());
    }
}
