//! Session keyrings (session-keyring(7)).

use std::io;

use crate::syscall::check;

const JOIN_SESSION_KEYRING: libc::c_long = 1;

/// Gives this process a new, empty session keyring: the keys of its parent's are out of reach for
/// it and its children.
///
/// # Errors
/// `Unsupported` when the kernel has no keys, else those of keyctl(2).
pub fn leave_session() -> io::Result<()> {
    let anonymous = std::ptr::null::<libc::c_char>();
    // SAFETY: a null name asks for a keyring without one; no memory is touched.
    check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, anonymous) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> io::Result<libc::c_long> {
        const GET_KEYRING_ID: libc::c_long = 0;
        const SESSION: libc::c_long = -3;
        // SAFETY: plain integers.
        check(unsafe { libc::syscall(libc::SYS_keyctl, GET_KEYRING_ID, SESSION, 0) })
    }

    #[test]
    fn a_new_session_is_another() {
        // Keyrings belong to threads: the others keep theirs.
        let (before, after) = std::thread::spawn(|| {
            let before = session().ok();
            let left = leave_session().map_err(|error| error.kind());
            assert!(matches!(left, Ok(()) | Err(io::ErrorKind::Unsupported)));
            (before, session().ok())
        })
        .join()
        .unwrap();
        assert!(before.is_none() || before != after, "{before:?}");
    }
}
