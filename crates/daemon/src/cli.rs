//! The command line of `crispd`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use crisp_telemetry::Filter;

use crate::config::{
    self, AbsolutePath, CgroupDriver, Config, Endpoint, LogFormat, NetworkMode, Written,
};
use crate::exit::{self, Exit, Fatal};

/// Crisp's daemon: serves CRI v1 to the kubelet and to crictl.
#[derive(Debug, Parser)]
#[command(name = "crispd", version, after_help = exit::TABLE)]
struct Cli {
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Each wins over the configuration file.
#[derive(Debug, Args)]
struct Flags {
    /// Configuration file [default: /etc/crisp/config.toml, which may be missing]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Images, layers and records [default: /var/lib/crisp]
    #[arg(long, value_name = "DIR", global = true)]
    root: Option<AbsolutePath>,
    /// Sockets, pins and bundles [default: /run/crisp]
    #[arg(long, value_name = "DIR", global = true)]
    state: Option<AbsolutePath>,
    /// CRI endpoint [default: crisp.sock in the state directory]
    #[arg(long, value_name = "unix:///PATH", global = true)]
    listen: Option<Endpoint>,
    /// Directory of HOST/hosts.toml files [default: /etc/crisp/certs.d]
    #[arg(long, value_name = "DIR", global = true)]
    registry_config: Option<AbsolutePath>,
    /// Where the pod network comes from [default: cni]
    #[arg(long, value_enum, global = true)]
    network: Option<NetworkMode>,
    /// Who makes cgroups [default: cgroupfs]
    #[arg(long, value_enum, global = true)]
    cgroup_driver: Option<CgroupDriver>,
    /// off, error, warn, info, debug or trace; by module as info,crisp_node=debug [default: info]
    #[arg(long, value_name = "LEVEL", global = true)]
    log_level: Option<Filter>,
    /// How log lines look [default: text]
    #[arg(long, value_enum, global = true)]
    log_format: Option<LogFormat>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the default configuration, or check one
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print every key with its default and what it is for
    Default,
    /// Read the configuration as the daemon would, and say what is wrong with it
    Check,
}

/// Runs `crispd` with the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            if error.use_stderr() {
                eprintln!("crispd: {}; see crispd --help", reason(&error));
                return Exit::Usage.into();
            }
            // Help and version come this way too; when nobody reads, nothing is to be done.
            return match error.print() {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => Exit::Usage.into(),
            };
        }
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fatal) => {
            eprintln!("crispd: {fatal}");
            fatal.exit.into()
        }
    }
}

/// The first paragraph of what clap says, as one line.
fn reason(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text.lines().take_while(|line| !line.trim().is_empty());
    let words: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
    words.join(" ").trim_start_matches("error: ").to_owned()
}

#[expect(
    clippy::print_stdout,
    reason = "these commands answer on standard output"
)]
fn run(cli: Cli) -> Result<(), Fatal> {
    match cli.command {
        Some(Command::Config(ConfigCommand::Default)) => {
            print!("{}", config::document());
            Ok(())
        }
        Some(Command::Config(ConfigCommand::Check)) => {
            let (_, files) = cli.flags.configuration()?;
            match files.as_slice() {
                [] => println!("ok: no file, defaults"),
                files => files
                    .iter()
                    .for_each(|file| println!("ok: {}", file.display())),
            }
            Ok(())
        }
        None => {
            let (config, files) = cli.flags.configuration()?;
            crate::daemon::run(config, &files)
        }
    }
}

impl Flags {
    fn configuration(self) -> Result<(Config, Vec<PathBuf>), Fatal> {
        let loaded = config::load(self.config.as_deref())?;
        let mut written = loaded.written;
        self.overlay(&mut written);
        Ok((config::resolve(written)?, loaded.files))
    }

    fn overlay(self, written: &mut Written) {
        fn set<T>(value: &mut T, flag: Option<T>) {
            if let Some(flag) = flag {
                *value = flag;
            }
        }
        set(&mut written.root, self.root);
        set(&mut written.state, self.state);
        set(&mut written.listen, self.listen);
        set(&mut written.images.registry_config, self.registry_config);
        set(&mut written.network.mode, self.network);
        set(&mut written.cgroup.driver, self.cgroup_driver);
        set(&mut written.log.level, self.log_level);
        set(&mut written.log.format, self.log_format);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_bad_flag_has_one_line_of_reason() {
        let bad = |words: &[&str]| reason(&Cli::try_parse_from(words).unwrap_err());
        let text = bad(&["crispd", "--rot", "/x"]);
        assert!(text.starts_with("unexpected argument '--rot'"), "{text}");
        let text = bad(&["crispd", "--network", "host"]);
        assert!(
            text.contains("'host'") && text.contains("builtin"),
            "{text}"
        );
    }

    #[test]
    fn flags_win_over_defaults() {
        let arguments = [
            "crispd",
            "--root",
            "/r",
            "--state",
            "/s",
            "--listen",
            "unix:///x.sock",
            "--registry-config",
            "/c",
            "--network",
            "builtin",
            "--cgroup-driver",
            "cgroupfs",
            "--log-level",
            "info,crisp_node=debug",
            "--log-format",
            "json",
        ];
        let cli = Cli::try_parse_from(arguments).unwrap();
        let mut written = Written::default();
        cli.flags.overlay(&mut written);
        let config = config::resolve(written).unwrap();
        assert_eq!(config.root, Path::new("/r"));
        assert_eq!(config.socket, Path::new("/x.sock"));
        assert_eq!(config.images.hosts_dir, Path::new("/c"));
        assert_eq!(config.log_format, LogFormat::Json);
        assert!(matches!(
            config.network.source,
            config::Source::Builtin { .. }
        ));
    }

    #[test]
    fn bad_flags_are_usage_errors() {
        for arguments in [
            &["crispd", "--network", "host"][..],
            &["crispd", "--root", "relative"],
            &["crispd", "--listen", "tcp://1.2.3.4:5"],
            &["crispd", "--log-level", "loud"],
            &["crispd", "start"],
            &["crispd", "config"],
        ] {
            let error = Cli::try_parse_from(arguments).unwrap_err();
            assert!(error.use_stderr(), "{arguments:?}");
        }
    }
}
