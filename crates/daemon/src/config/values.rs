//! Types of configuration values that check themselves as they are parsed, so that an error can
//! point at the line.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The reason why a value is refused, in a sentence that names a right one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ValueError(String);

/// Implements the conversions from and to text, for files and flags.
macro_rules! text_value {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = ValueError;
            fn try_from(text: String) -> Result<Self, ValueError> {
                Self::parse(&text)
            }
        }

        impl FromStr for $name {
            type Err = ValueError;
            fn from_str(text: &str) -> Result<Self, ValueError> {
                Self::parse(text)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
    };
}

fn is_clean(path: &Path) -> bool {
    path.components().all(|c| c != Component::ParentDir)
}

/// A path that starts with `/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AbsolutePath(PathBuf);

impl AbsolutePath {
    fn parse(text: &str) -> Result<Self, ValueError> {
        let path = PathBuf::from(text);
        if path.is_absolute() && is_clean(&path) && !text.contains('\0') {
            Ok(Self(path))
        } else {
            Err(ValueError(format!(
                "{text:?} is not an absolute path without \"..\": write it from \"/\""
            )))
        }
    }

    /// The path.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

impl fmt::Display for AbsolutePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

text_value!(AbsolutePath);

/// An absolute path, or empty for none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MaybePath(Option<AbsolutePath>);

impl MaybePath {
    fn parse(text: &str) -> Result<Self, ValueError> {
        let path = (!text.is_empty()).then(|| AbsolutePath::parse(text));
        path.transpose().map(Self)
    }

    /// The path, when one was written.
    #[must_use]
    pub fn to_path(&self) -> Option<PathBuf> {
        self.0.as_ref().map(|path| path.0.clone())
    }
}

impl fmt::Display for MaybePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |path| path.fmt(f))
    }
}

text_value!(MaybePath);

/// A path below another one, such as a cgroup below the root of its hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RelativePath(String);

impl RelativePath {
    fn parse(text: &str) -> Result<Self, ValueError> {
        let text = text.trim_start_matches('/');
        if !text.is_empty() && is_clean(Path::new(text)) && !text.contains(['\0', '\n']) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ValueError(format!(
                "{text:?} is not a path below the root without \"..\""
            )))
        }
    }
}

impl fmt::Display for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_value!(RelativePath);

/// `unix:///PATH`, or empty for the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Endpoint(Option<AbsolutePath>);

/// `sun_path` holds 108 bytes with its NUL (unix(7)).
const LONGEST_SOCKET: usize = 107;

impl Endpoint {
    fn parse(text: &str) -> Result<Self, ValueError> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let wrong = || ValueError(format!("{text:?} is not unix:///PATH"));
        let path = text.strip_prefix("unix://").ok_or_else(wrong)?;
        let path = AbsolutePath::parse(path).map_err(|_| wrong())?;
        if path.to_string().len() > LONGEST_SOCKET {
            let why = format!("{text:?} is longer than {LONGEST_SOCKET} bytes: use a shorter path");
            return Err(ValueError(why));
        }
        Ok(Self(Some(path)))
    }

    /// The socket's path, when one was written.
    #[must_use]
    pub fn to_path(&self) -> Option<PathBuf> {
        self.0.as_ref().map(|path| path.0.clone())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .as_ref()
            .map_or(Ok(()), |path| write!(f, "unix://{path}"))
    }
}

text_value!(Endpoint);

/// A number between two bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct Within<const MIN: u32, const MAX: u32>(u32);

impl<const MIN: u32, const MAX: u32> Within<MIN, MAX> {
    /// The number, moved into the bounds.
    #[must_use]
    pub const fn clamped(value: u32) -> Self {
        if value < MIN {
            Self(MIN)
        } else if value > MAX {
            Self(MAX)
        } else {
            Self(value)
        }
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl<const MIN: u32, const MAX: u32> TryFrom<i64> for Within<MIN, MAX> {
    type Error = ValueError;
    fn try_from(value: i64) -> Result<Self, ValueError> {
        match u32::try_from(value) {
            Ok(value) if (MIN..=MAX).contains(&value) => Ok(Self(value)),
            _ => Err(ValueError(format!("{value} is not within {MIN} to {MAX}"))),
        }
    }
}

impl<const MIN: u32, const MAX: u32> From<Within<MIN, MAX>> for i64 {
    fn from(value: Within<MIN, MAX>) -> i64 {
        value.0.into()
    }
}

/// An IP network in CIDR notation. It is `ipnet`'s type, with an error that says what is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet(IpNet);

impl Subnet {
    fn parse(text: &str) -> Result<Self, ValueError> {
        text.parse().map(Self).map_err(|_| {
            ValueError(format!(
                "{text:?} is not a network like 10.88.0.0/16 or fd00:88::/64"
            ))
        })
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text_value!(Subnet);

/// An address to listen on, `IP:PORT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SocketAddress(SocketAddr);

impl SocketAddress {
    fn parse(text: &str) -> Result<Self, ValueError> {
        text.parse().map(Self).map_err(|_| {
            ValueError(format!(
                "{text:?} is not IP:PORT, like 127.0.0.1:0 or [::1]:10010"
            ))
        })
    }

    /// The address.
    #[must_use]
    pub fn get(self) -> SocketAddr {
        self.0
    }
}

impl fmt::Display for SocketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text_value!(SocketAddress);

/// An address that others have to know, `IP:PORT`, or empty for none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MaybeSocketAddress(Option<SocketAddr>);

impl MaybeSocketAddress {
    fn parse(text: &str) -> Result<Self, ValueError> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() != 0 => Ok(Self(Some(address))),
            Ok(_) => Err(ValueError(format!(
                "{text:?} has no port that others could know: name one, like 127.0.0.1:9477"
            ))),
            Err(_) => Err(ValueError(format!(
                "{text:?} is not IP:PORT, like 127.0.0.1:9477 or [::1]:9477"
            ))),
        }
    }

    /// The address, when one was written.
    #[must_use]
    pub fn to_option(self) -> Option<SocketAddr> {
        self.0
    }
}

impl fmt::Display for MaybeSocketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |address| address.fmt(f))
    }
}

text_value!(MaybeSocketAddress);

/// The beginning of URLs, `http://HOST:PORT` or `https://HOST:PORT`, or empty for none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MaybeBaseUrl(String);

impl MaybeBaseUrl {
    fn parse(text: &str) -> Result<Self, ValueError> {
        let schemes = ["http://", "https://"];
        let host = schemes.iter().find_map(|scheme| text.strip_prefix(scheme));
        let is_host = |host: &str| {
            let host = host.trim_end_matches('/');
            !host.is_empty()
                && !host.contains(['/', '?', '#'])
                && !host.contains(char::is_whitespace)
        };
        if text.is_empty() || host.is_some_and(is_host) {
            return Ok(Self(text.to_owned()));
        }
        Err(ValueError(format!(
            "{text:?} is not http://HOST:PORT or https://HOST:PORT"
        )))
    }

    /// The URL, when one was written.
    pub fn to_option(&self) -> Option<String> {
        Some(self.0.clone()).filter(|text| !text.is_empty())
    }
}

impl fmt::Display for MaybeBaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_value!(MaybeBaseUrl);

/// The address of a collector, `http://HOST:PORT`, or empty for none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MaybeCollector(String);

impl MaybeCollector {
    fn parse(text: &str) -> Result<Self, ValueError> {
        let host = text.strip_prefix("http://");
        let is_host = |host: &str| !host.is_empty() && !host.contains(|c: char| c.is_whitespace());
        if text.is_empty() || host.is_some_and(is_host) {
            return Ok(Self(text.to_owned()));
        }
        Err(ValueError(format!(
            "{text:?} is not http://HOST:PORT (a collector with TLS needs a local one before it)"
        )))
    }

    /// The address, when one was written.
    pub fn to_option(&self) -> Option<String> {
        Some(self.0.clone()).filter(|text| !text.is_empty())
    }
}

impl fmt::Display for MaybeCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_value!(MaybeCollector);
