//! The reading side of a client's socket. Heads of frames are read through a small buffer, since an
//! idle session has one too; the data of large frames goes past it.

use std::io;

use bytes::{BufMut as _, BytesMut};
use futures::FutureExt as _;
use tokio::io::{AsyncReadExt as _, BufReader};

use crate::session::Reading;

/// Bytes that are read at once of small frames.
pub(crate) const BUFFER: usize = 2 << 10;

/// A socket behind its buffer.
pub(crate) type Socket = BufReader<Reading>;

/// A socket that is read through a buffer.
pub(crate) fn buffered(socket: Reading) -> Socket {
    BufReader::with_capacity(BUFFER, socket)
}

/// Reads what there is, at most `most` bytes; none at the end.
///
/// The head of a frame has taken the beginning of its data into the buffer, and the socket has mostly
/// the rest. Both are one piece: two would cost a message, and a write to the process, more.
pub(crate) async fn some(socket: &mut Socket, most: usize) -> io::Result<BytesMut> {
    let mut bytes = BytesMut::with_capacity(most);
    let read = socket.read_buf(&mut (&mut bytes).limit(most)).await?;
    if read > 0 && read < most {
        let mut room = (&mut bytes).limit(most - read);
        // An end comes again with the next read, and an error as an end.
        drop(socket.read_buf(&mut room).now_or_never());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt as _;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn what_is_buffered_and_what_is_there_are_one_piece() {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let mut socket = buffered(Box::new(server));
        let sent: Vec<u8> = (0..=255).cycle().take(10 + 5 * BUFFER).collect();
        client.write_all(&sent).await.unwrap();
        let mut head = [0; 10];
        socket.read_exact(&mut head).await.unwrap();
        assert_eq!(
            some(&mut socket, 4 * BUFFER).await.unwrap(),
            sent[10..][..4 * BUFFER]
        );
        // The rest does not wait for as much as there is room for.
        let within = Duration::from_secs(20);
        let rest = timeout(within, some(&mut socket, 4 * BUFFER))
            .await
            .unwrap();
        assert_eq!(rest.unwrap(), sent[10 + 4 * BUFFER..]);
        client.write_all(b"last").await.unwrap();
        drop(client);
        assert_eq!(&some(&mut socket, 64).await.unwrap()[..], b"last");
        assert!(some(&mut socket, 64).await.unwrap().is_empty());
    }
}
