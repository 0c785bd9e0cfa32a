//! Session keyrings (session-keyring(7)).

use std::ffi::CString;
use std::io;

use crate::syscall::check;

const JOIN_SESSION_KEYRING: libc::c_long = 1;
const SETPERM: libc::c_long = 5;

/// Rights on a named keyring: all for who possesses it; view, read, search and link for its owner,
/// of which the kernel gives all but search by itself. Without search nobody can join it by name.
const FOUND_BY_NAME: libc::c_long = 0x3f1b_0000;

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

/// Makes the keyring of this name the session keyring of this process: the one that is there, or a
/// new one, which others of the same user then join by its name.
///
/// # Errors
/// As [`leave_session`]; and when the name holds a zero byte.
pub fn join_session(name: &str) -> io::Result<()> {
    let name = CString::new(name)?;
    // SAFETY: the name is a string of C's that lives as long as the call.
    let keyring =
        check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) })?;
    // SAFETY: plain integers.
    check(unsafe { libc::syscall(libc::SYS_keyctl, SETPERM, keyring, FOUND_BY_NAME) }).map(drop)
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
    fn a_named_session_is_shared_by_those_who_know_its_name() {
        let name = format!("_ses.crisp-sys-test-{}", std::process::id());
        let join = |name: String| {
            let joined = move || {
                let joined = join_session(&name).map_err(|error| error.kind());
                assert!(matches!(joined, Ok(()) | Err(io::ErrorKind::Unsupported)));
                session().ok()
            };
            std::thread::spawn(joined).join().unwrap()
        };
        // A keyring lives as long as a thread has it.
        let (end, stays) = std::sync::mpsc::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        let holder = std::thread::spawn({
            let name = name.clone();
            move || {
                tell.send(join_session(&name).ok().and_then(|()| session().ok()))
                    .unwrap();
                stays.recv().ok();
            }
        });
        let first = told.recv().unwrap();
        assert_eq!(join(name.clone()), first);
        assert!(first.is_none() || join(format!("{name}-other")) != first);
        drop(end);
        holder.join().unwrap();
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
