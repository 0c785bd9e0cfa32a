//! Homes choose their ranges one after another: what one has chosen is seen by others once its bridge is
//! there.

use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::{Duration, Instant};

use crate::failure::{Context as _, Failure, Result};

/// A network of a machine has one such name, which the kernel frees with its holder.
const NAME: &str = "crisp-cluster-ranges";
/// How long the commands of other homes may take: each waits for its crispd at most a minute.
const PATIENCE: Duration = Duration::from_secs(180);
/// How long a command waits without a word.
const SILENT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(50);

/// The turn of one home in this machine's network, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    _holds: UnixListener,
}

impl Turn {
    /// Waits for it.
    pub async fn take() -> Result<Self> {
        Self::named(NAME, PATIENCE).await
    }

    async fn named(name: &str, patience: Duration) -> Result<Self> {
        let step = || format!("network of the machine: take the name @{name}");
        let address = SocketAddr::from_abstract_name(name).context(step)?;
        let begun = Instant::now();
        let mut is_told = false;
        loop {
            match UnixListener::bind_addr(&address) {
                Ok(_holds) => return Ok(Self { _holds }),
                Err(error) if error.kind() == ErrorKind::AddrInUse => (),
                Err(error) => return Err(error).context(step),
            }
            if begun.elapsed() > patience {
                let text = format!(
                    "network of the machine: another `crisp cluster` chooses ranges, for {} s now",
                    patience.as_secs()
                );
                let remedy = format!("`ss -lxp` shows who has @{name}: end it, and try again");
                return Err(Failure::new(text).remedy(remedy));
            }
            if begun.elapsed() > SILENT && !is_told {
                crate::progress::say(format_args!(
                    "crisp: another directory's clusters get their network: waiting for it"
                ));
                is_told = true;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_home_at_a_time_has_its_turn() {
        let name = format!("crisp-test-{}", std::process::id());
        let held = Turn::named(&name, Duration::ZERO).await.unwrap();
        let refused = Turn::named(&name, Duration::ZERO).await.unwrap_err();
        assert!(refused.to_string().contains("ss -lxp"), "{refused}");
        let waits = Turn::named(&name, Duration::from_secs(60));
        let waits = std::pin::pin!(waits);
        let (second, ()) = futures::join!(waits, async {
            tokio::time::sleep(PAUSE).await;
            drop(held);
        });
        assert!(second.is_ok());
    }
}
