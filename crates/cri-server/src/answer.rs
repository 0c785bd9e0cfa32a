//! An answer is an error of ours as gRPC's status: the code says who can mend it, the message says
//! what failed and why.

use crisp_model::text::bounded;
use crisp_node::{Code, Error};
use tonic::Status;
use {crisp_image as image, crisp_registry as registry, crisp_streaming as streaming};

use crate::from_cri::Refusal;
use crate::to_cri::field::path;

/// A status message travels in a header, in percent coding, and clients refuse headers of 8 kB.
const LONGEST: usize = 4096;

/// The remedy for a disk without room.
const FULL: &str = "no room is left there: remove images or files, or enlarge the disk; files take \
                    inodes too";
/// The same for a step of the engine, which may have met a limit of the kernel that answers alike.
const EXHAUSTED: &str = "no room is left there: free space and inodes of that disk, or raise the \
                         kernel's limit of mounts, namespaces or watches if that was met";

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let text = bounded(&refusal.to_string(), LONGEST);
        match refusal {
            Refusal::Invalid { .. } => Self::invalid_argument(text),
            Refusal::Unimplemented(_) => Self::unimplemented(text),
        }
    }
}

/// The status of an error of the engine.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
#[must_use]
pub fn engine(error: Error) -> Status {
    let code = match error.code() {
        Code::NotFound => tonic::Code::NotFound,
        Code::InvalidArgument => tonic::Code::InvalidArgument,
        Code::FailedPrecondition => tonic::Code::FailedPrecondition,
        Code::AlreadyExists => tonic::Code::AlreadyExists,
        Code::DeadlineExceeded => tonic::Code::DeadlineExceeded,
        Code::Unavailable => tonic::Code::Unavailable,
        Code::Unimplemented => tonic::Code::Unimplemented,
        Code::ResourceExhausted => tonic::Code::ResourceExhausted,
        Code::Internal => tonic::Code::Internal,
    };
    let text = match &error {
        Error::InvalidArgument { field, why } | Error::NotNow { field, why } => {
            format!("{}: {why}", path(field))
        }
        other if code == tonic::Code::ResourceExhausted => format!("{other}; {EXHAUSTED}"),
        other => other.to_string(),
    };
    Status::new(code, bounded(&text, LONGEST))
}

/// The status of an error of the image store.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
#[must_use]
pub fn images(error: image::Error) -> Status {
    if error.is_full_disk() {
        let text = bounded(&error.to_string(), LONGEST - FULL.len());
        return Status::resource_exhausted(format!("{text}; {FULL}"));
    }
    let code = match &error {
        image::Error::Reference(_) | image::Error::Ambiguous(_) => tonic::Code::InvalidArgument,
        image::Error::NotFound(_) => tonic::Code::NotFound,
        image::Error::Registry(error) => registry_code(error),
        image::Error::Invalid { .. } => tonic::Code::DataLoss,
        image::Error::NoPlatform { .. } => tonic::Code::FailedPrecondition,
        image::Error::Interrupted(_) => tonic::Code::Unavailable,
        image::Error::Abandoned(_) => tonic::Code::Cancelled,
        image::Error::Content(_)
        | image::Error::Snapshot(_)
        | image::Error::Newer { .. }
        | image::Error::InUse(_)
        | image::Error::Io { .. } => tonic::Code::Internal,
    };
    Status::new(code, bounded(&error.to_string(), LONGEST))
}

/// The status of an error of the streaming server.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
#[must_use]
pub fn streams(error: streaming::Error) -> Status {
    let code = match error {
        streaming::Error::TooMany(_) => tonic::Code::ResourceExhausted,
        streaming::Error::Listen { .. } | streaming::Error::Failed { .. } => tonic::Code::Internal,
    };
    Status::new(code, bounded(&error.to_string(), LONGEST))
}

fn registry_code(error: &registry::Error) -> tonic::Code {
    match error {
        registry::Error::NotFound { .. } => tonic::Code::NotFound,
        registry::Error::Unauthorized { .. } => tonic::Code::Unauthenticated,
        registry::Error::Denied { .. } => tonic::Code::PermissionDenied,
        registry::Error::Unavailable { .. }
        | registry::Error::TooSlow { .. }
        | registry::Error::Tls { .. } => tonic::Code::Unavailable,
        registry::Error::TooLarge { .. } => tonic::Code::ResourceExhausted,
        registry::Error::Protocol { .. } | registry::Error::DigestMismatch { .. } => {
            tonic::Code::DataLoss
        }
        registry::Error::Config { .. } => tonic::Code::FailedPrecondition,
    }
}

#[cfg(test)]
mod tests {
    use crisp_model::{Field, Limit};

    use super::*;

    #[test]
    fn fields_are_named_as_cri_names_them() {
        let why = || "why".to_owned();
        let invalid = |field| Error::InvalidArgument { field, why: why() };
        let (field, why) = (Field::PidTarget, why());
        for (error, text, code) in [
            (
                invalid(Field::Sysctl("a.b".to_owned())),
                "linux.sysctls[\"a.b\"]: why",
                tonic::Code::InvalidArgument,
            ),
            (
                invalid(Field::Limit(Limit::Memory)),
                "linux.resources.memory_limit_in_bytes: why",
                tonic::Code::InvalidArgument,
            ),
            (
                Error::NotNow { field, why },
                "linux.security_context.namespace_options.target_id: why",
                tonic::Code::FailedPrecondition,
            ),
        ] {
            let status = engine(error);
            assert_eq!((status.message(), status.code()), (text, code));
        }
    }
    #[test]
    fn a_long_text_fits_into_a_header() {
        let long = Error::Unavailable("é".repeat(100_000));
        let message = engine(long).message().to_owned();
        assert!(message.len() * 3 <= LONGEST + 100, "{}", message.len());
    }
}
