//! The programs that a cluster is made of: Crisp's own, Kubernetes', and a few of this machine, whose
//! `/usr` the nodes see.

use std::env;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

use crate::arguments::Up;
use crate::failure::{Context as _, Failure, Remedy as _, Result};
use crate::versions;

/// Crisp's own, beside this program.
const OURS: [&str; 1] = ["crispd"];
/// Programs that crispd finds beside it, or where packages put them; nodes see that place as well.
const HELPERS: [&str; 2] = ["crisp-shim", "crisp-holder"];
const PACKAGED: &str = "/usr/libexec/crisp";
/// Kubernetes' and all that belongs to its control plane.
const KUBERNETES: [&str; 8] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "kubectl",
    "etcd",
    "coredns",
];
/// This machine's that nodes need, with Debian's packages.
const MACHINE: [(&str, &str); 2] = [("ip", "iproute2"), ("nft", "nftables")];

/// The first version of Linux on which kube-proxy writes rules of nftables.
const KERNEL: (u32, u32) = (5, 13);

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The directory of Crisp's programs.
    pub ours: PathBuf,
    /// The directory of Kubernetes' programs.
    pub kubernetes: PathBuf,
}

impl Programs {
    /// Finds those that `up` asks for, or else those that a cluster has kept.
    pub fn chosen(up: &Up, kept: Option<&Path>) -> Result<Self> {
        let version = up.kubernetes_version.as_ref();
        match version.map(|version| versions::cached(Some(version))) {
            Some(dir) => Self::find(Some(&dir?)),
            None => Self::find(up.kubernetes.as_deref().or(kept)),
        }
    }

    /// Finds all of them; Kubernetes' in a directory that was named, or in the cache.
    pub fn find(named: Option<&Path>) -> Result<Self> {
        let kubernetes = match named {
            Some(dir) => std::path::absolute(dir)
                .context(|| format!("--kubernetes {}: make the path absolute", dir.display()))?,
            None => versions::cached(None)?,
        };
        let found = Self {
            ours: ours()?,
            kubernetes,
        };
        found.check()?;
        Ok(found)
    }

    fn check(&self) -> Result<()> {
        let places = [self.ours.as_path(), Path::new(PACKAGED)];
        all_in(&places[..1], &OURS)
            .and_then(|()| all_in(&places, &HELPERS))
            .remedy(|| "hack/build builds all programs of Crisp into one directory".to_owned())?;
        all_in(&[&self.kubernetes], &KUBERNETES).remedy(|| {
            "`hack/tools cluster` builds Kubernetes' programs; --kubernetes DIR names a directory \
             with others"
                .to_owned()
        })?;
        check_kernel(&rustix::system::uname().release().to_string_lossy())?;
        for name in MACHINE.map(|(name, _)| name) {
            of_machine(name)?;
        }
        Ok(())
    }
}

/// The directory of Crisp's programs: that of this one.
pub fn ours() -> Result<PathBuf> {
    // A link, as `~/bin/crisp` may be, has no crispd beside it.
    let program = env::current_exe()
        .and_then(|path| path.canonicalize())
        .context(|| "crisp: find out where this program is".to_owned())?;
    Ok(program.parent().unwrap_or(Path::new("/")).to_owned())
}

/// Refuses kernels on which kube-proxy refuses its nftables mode.
fn check_kernel(release: &str) -> Result<()> {
    let mut numbers = release.split(['.', '-', '+']).map(str::parse::<u32>);
    let version = (numbers.next(), numbers.next());
    match version {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) < KERNEL => {
            let (major, minor) = KERNEL;
            Err(Failure::new(format!(
                "Linux {release}: kube-proxy takes {major}.{minor} or later"
            ))
            .remedy("services would lead nowhere: use a newer kernel"))
        }
        _ => Ok(()),
    }
}

/// Where a program of this machine is.
pub fn of_machine(name: &str) -> Result<PathBuf> {
    let mut paths = ["/usr/sbin", "/usr/bin"]
        .map(|dir| Path::new(dir).join(name))
        .into_iter();
    let found = paths.find(|path| path.is_file());
    let package = MACHINE.iter().find(|(known, _)| *known == name);
    let package = package.map_or(name, |(_, package)| package);
    found
        .ok_or_else(|| {
            Failure::new(format!(
                "{name}: it is neither in /usr/sbin nor in /usr/bin"
            ))
        })
        .remedy(|| format!("install it (Debian's package is {package})"))
}

/// Refuses programs that are in none of some directories, or cannot be run there, and names them.
fn all_in(dirs: &[&Path], names: &[&str]) -> Result<()> {
    let lacking = |is_well: fn(&Path) -> bool| {
        let is_well = |name: &str| dirs.iter().any(|dir| is_well(&dir.join(name)));
        let names: Vec<&str> = names
            .iter()
            .copied()
            .filter(|name| !is_well(name))
            .collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    let dirs = || {
        let dirs: Vec<String> = dirs.iter().map(|dir| dir.display().to_string()).collect();
        dirs.join(" or ")
    };
    if let Some(names) = lacking(Path::is_file) {
        let text = format!("{}: these programs are missing: {names}", dirs());
        return Err(Failure::new(text));
    }
    match lacking(can_be_run) {
        None => Ok(()),
        Some(names) => Err(Failure::new(format!(
            "{}: these are no programs that can be run: {names}; `chmod +x` makes them ones, unless their file system \
             is mounted noexec",
            dirs()
        ))),
    }
}

/// Whether it has the mode of a program, on a file system from which programs run.
fn can_be_run(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(dir: &Path, name: &str, mode: u32) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = dir.join(name);
        std::fs::File::create(&path).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn files_that_cannot_be_run_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["etcd", "kubelet"];
        put(dir.path(), names[0], 0o644);
        put(dir.path(), names[1], 0o755);
        let text = all_in(&[dir.path()], &names).unwrap_err().to_string();
        assert!(text.contains("be run: etcd; `chmod +x`"), "{text}");
        put(dir.path(), names[0], 0o755);
        assert!(all_in(&[dir.path()], &names).is_ok());
    }

    #[test]
    fn kernels_without_services_are_refused() {
        for good in ["5.13.0", "5.13", "6.1.0-18-amd64", "10.0.1+", "odd"] {
            assert!(check_kernel(good).is_ok(), "{good}");
        }
        for old in ["5.12.19", "4.19.0-6", "5.9"] {
            assert!(check_kernel(old).is_err(), "{old}");
        }
    }

    #[test]
    fn all_that_is_missing_is_named_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::File::create(dir.path().join("kubelet")).unwrap();
        let failed = Programs {
            ours: dir.path().to_owned(),
            kubernetes: dir.path().to_owned(),
        };
        let text = failed.check().unwrap_err().to_string();
        assert!(text.contains("missing: crispd;") && text.contains("hack/build"));
        let text = all_in(&[dir.path()], &KUBERNETES).unwrap_err().to_string();
        assert!(text.contains("etcd") && !text.contains("kubelet"), "{text}");
    }

    /// crispd in a directory for programs, its helpers in one of their own.
    #[test]
    fn helpers_may_be_where_packages_put_them() {
        let [bin, libexec] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        put(bin.path(), HELPERS[0], 0o755);
        let both = [bin.path(), libexec.path()];
        let text = all_in(&both, &HELPERS).unwrap_err().to_string();
        assert!(
            text.contains(" or ") && text.ends_with("missing: crisp-holder"),
            "{text}"
        );
        put(libexec.path(), HELPERS[1], 0o755);
        assert!(all_in(&both, &HELPERS).is_ok());
    }
}
