//! The command line of `crispd`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use crisp_cgroups::CgroupDriver;
use crisp_telemetry::Filter;

use crate::config::{
    self, AbsolutePath, Config, Endpoint, LogFormat, MaybeCollector, MaybeSocketAddress,
    NetworkMode, SocketAddress, Written, help, long_help,
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

/// Flags; each wins over the configuration file.
#[derive(Debug, Args)]
struct Flags {
    /// Configuration file [default: /etc/crisp/config.toml, which may be missing]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[arg(long, value_name = "DIR", global = true, help = help("root"), long_help = long_help("root"))]
    root: Option<AbsolutePath>,
    #[arg(long, value_name = "DIR", global = true, help = help("state"), long_help = long_help("state"))]
    state: Option<AbsolutePath>,
    #[arg(long, value_name = "unix:///PATH", global = true, help = help("listen"), long_help = long_help("listen"))]
    listen: Option<Endpoint>,
    #[arg(long, value_name = "DIR", global = true, help = help("images.registry_config"), long_help = long_help("images.registry_config"))]
    registry_config: Option<AbsolutePath>,
    #[arg(long, value_enum, global = true, help = help("network.mode"), long_help = long_help("network.mode"))]
    network: Option<NetworkMode>,
    #[arg(long, value_parser = driver(), global = true, help = help("cgroup.driver"), long_help = long_help("cgroup.driver"))]
    cgroup_driver: Option<CgroupDriver>,
    #[arg(long, value_name = "IP:PORT", global = true, help = help("streaming.listen"), long_help = long_help("streaming.listen"))]
    streaming_listen: Option<SocketAddress>,
    #[arg(long, value_name = "LEVEL", global = true, help = help("log.level"), long_help = long_help("log.level"))]
    log_level: Option<Filter>,
    #[arg(long, value_enum, global = true, help = help("log.format"), long_help = long_help("log.format"))]
    log_format: Option<LogFormat>,
    #[arg(long, value_name = "http://HOST:PORT", global = true, help = help("telemetry.otlp_endpoint"), long_help = long_help("telemetry.otlp_endpoint"))]
    otlp_endpoint: Option<MaybeCollector>,
    #[arg(long, value_name = "IP:PORT", global = true, help = help("metrics.listen"), long_help = long_help("metrics.listen"))]
    metrics_listen: Option<MaybeSocketAddress>,
}

/// Takes the names of the drivers, and lists them when it is given another word.
fn driver() -> impl TypedValueParser<Value = CgroupDriver> {
    PossibleValuesParser::new(["cgroupfs", "systemd"]).try_map(|name| name.parse())
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
            // Help and version are errors for clap too. A closed standard output is no reason to
            // complain.
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

/// The first paragraph of clap's message, as one line.
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
        if written.telemetry.otlp_endpoint == MaybeCollector::default() {
            written.telemetry.otlp_endpoint = collector_of_environment()?;
        }
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
        set(&mut written.streaming.listen, self.streaming_listen);
        set(&mut written.log.level, self.log_level);
        set(&mut written.log.format, self.log_format);
        set(&mut written.telemetry.otlp_endpoint, self.otlp_endpoint);
        set(&mut written.metrics.listen, self.metrics_listen);
    }
}

/// The collector that the environment names, for nodes that set it for all their services.
fn collector_of_environment() -> Result<MaybeCollector, Fatal> {
    const NAME: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let text = std::env::var(NAME).unwrap_or_default();
    if !crisp_telemetry::HAS_OTLP {
        return Ok(MaybeCollector::default());
    }
    text.parse()
        .map_err(|error| Fatal::new(Exit::Config, format!("{NAME}: {error}")))
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
            "--streaming-listen",
            "[::1]:7",
            "--metrics-listen",
            "127.0.0.1:9",
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
        assert_eq!(config.streaming.listen.to_string(), "[::1]:7");
        assert_eq!(config.metrics, "127.0.0.1:9".parse().ok());
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
            &["crispd", "--streaming-listen", "10010"],
            &["crispd", "--metrics-listen", "9477"],
            &["crispd", "--metrics-listen", "127.0.0.1:0"],
            &["crispd", "--metrics-listen", "localhost:9477"],
            &["crispd", "start"],
            &["crispd", "config"],
        ] {
            let error = Cli::try_parse_from(arguments).unwrap_err();
            assert!(error.use_stderr(), "{arguments:?}");
        }
    }
}
