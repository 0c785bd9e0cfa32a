//! Memory of small, long-lived processes: kept small, and given back to the kernel.

/// Makes the allocator hand large blocks back at once and keep little in reserve.
pub fn keep_little() {
    const LARGE: libc::c_int = 32 * 1024;
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two ints; a value that it refuses changes nothing.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE);
        libc::mallopt(libc::M_TOP_PAD, 0);
    }
}

/// Makes all threads share so many arenas of the allocator: each arena keeps free memory of its own,
/// and without a bound there are eight for each processor.
pub fn share_arenas(arenas: usize) {
    let arenas = libc::c_int::try_from(arenas).unwrap_or(libc::c_int::MAX);
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two ints; a value that it refuses changes nothing.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, arenas.max(1));
    }
}

/// Makes the allocator take memory by large pieces and keep it: for a process that lives for a few
/// milliseconds and whose parent keeps little.
pub fn keep_much() {
    const LARGE: libc::c_int = 8 * 1024 * 1024;
    const PIECE: libc::c_int = 256 * 1024;
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two ints; a value that it refuses changes nothing.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE);
        libc::mallopt(libc::M_TOP_PAD, PIECE);
    }
}

/// Gives free memory of the allocator back to the kernel.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim touches free blocks only.
    unsafe {
        libc::malloc_trim(0);
    }
}
