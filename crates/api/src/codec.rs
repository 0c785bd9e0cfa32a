//! How servers decode requests: as prost does, but never into many times their size. An empty part
//! of a list takes two bytes on the wire and hundreds in memory, so that a message within its bound
//! could take gigabytes.

use std::fmt;
use std::marker::PhantomData;

use prost::Message;
use prost::bytes::Buf as _;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstDecoder, ProstEncoder};

/// So many fields any request may have: more than the largest pod that a cluster can store.
const ALWAYS: usize = 1 << 17;
/// Beyond them, a field has this many bytes on average.
const BYTES_EACH: usize = 32;
/// No message of CRI lies deeper in another; what looks like one is text.
const DEEPEST: u8 = 10;

/// The codec of servers.
pub struct Bounded<T, U>(PhantomData<(T, U)>);

impl<T, U> fmt::Debug for Bounded<T, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bounded")
    }
}

impl<T, U> Default for Bounded<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for Bounded<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(ProstDecoder::default())
    }
}

/// Decodes requests that have no more fields than their size allows.
#[derive(Debug)]
pub struct BoundedDecoder<U>(ProstDecoder<U>);

impl<U: Message + Default> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        check(buffer.chunk())?;
        self.0.decode(buffer)
    }
}

fn check(message: &[u8]) -> Result<(), Status> {
    let most = ALWAYS + message.len() / BYTES_EACH;
    // A message that makes no sense is refused when it is decoded.
    match fields(message, 0) {
        Some(count) if count > most => Err(Status::invalid_argument(format!(
            "the request has {count} fields in {} bytes, and may have {most}: it would take many \
             times its size in memory",
            message.len()
        ))),
        _ => Ok(()),
    }
}

/// Counts fields, also those of messages within; `None` where the bytes are no message.
fn fields(mut rest: &[u8], depth: u8) -> Option<usize> {
    let mut count = 0;
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        if tag >> 3 == 0 {
            return None;
        }
        count += 1;
        match tag & 7 {
            0 => {
                varint(&mut rest)?;
            }
            1 => rest = rest.get(8..)?,
            2 => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                let (within, after) = rest.split_at_checked(length)?;
                rest = after;
                if depth < DEEPEST && !is_text(within) {
                    count += fields(within, depth + 1).unwrap_or(0);
                }
            }
            5 => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(count)
}

/// Whether there is no control character. A message without one has no parts that are small: their
/// lengths are such characters. A text may look like a message by chance, as a row of `x` does.
fn is_text(bytes: &[u8]) -> bool {
    let is_plain = |byte: &u8| !byte.is_ascii_control() || matches!(byte, b'\t' | b'\n' | b'\r');
    bytes.iter().all(is_plain)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::v1::{
        ContainerConfig, CreateContainerRequest, KeyValue, Mount, PodSandboxConfig,
    };

    fn request(config: ContainerConfig) -> Vec<u8> {
        let request = CreateContainerRequest {
            pod_sandbox_id: "a".repeat(64),
            config: Some(config),
            sandbox_config: Some(PodSandboxConfig::default()),
        };
        request.encode_to_vec()
    }

    #[test]
    fn fields_are_counted_at_every_depth() {
        let config = ContainerConfig {
            args: vec!["one".to_owned(), String::new()],
            envs: vec![KeyValue {
                key: "K".to_owned(),
                value: b"V".to_vec(),
            }],
            mounts: vec![Mount::default(); 3],
            ..ContainerConfig::default()
        };
        // Id, two configurations; two words, a variable and its two parts, three mounts.
        assert_eq!(fields(&request(config), 0), Some(3 + 2 + 3 + 3));
        for no_message in [
            &[0x80][..],
            &[0x0a, 5, 1],
            &[0x09, 1],
            &[0],
            &[0x0b],
            &[0xff; 11],
        ] {
            assert_eq!(fields(no_message, 0), None, "{no_message:?}");
            assert!(check(no_message).is_ok(), "prost says what is wrong");
        }
    }

    #[test]
    fn only_requests_of_tiny_parts_are_refused() {
        let mounts = |count| ContainerConfig {
            mounts: vec![Mount::default(); count],
            ..ContainerConfig::default()
        };
        check(&request(mounts(ALWAYS - 3))).unwrap();
        let status = check(&request(mounts(2 * ALWAYS))).unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert!(status.message().contains("262147 fields"), "{status}");
        let args = vec!["x".repeat(1 << 20), "0\n".repeat(1 << 20)];
        check(&request(ContainerConfig {
            args,
            ..ContainerConfig::default()
        }))
        .unwrap();
        // As large as a request may be, with as many parts as text of some length has.
        let envs = vec![
            KeyValue {
                key: "A_VARIABLE_OF_SOME_LENGTH_AND_MORE".to_owned(),
                value: b"its value, which is long enough not to be counted".repeat(2),
            };
            125_000
        ];
        let long = request(ContainerConfig {
            envs,
            ..ContainerConfig::default()
        });
        assert!(long.len() > 16 << 20);
        check(&long).unwrap();
    }
}
