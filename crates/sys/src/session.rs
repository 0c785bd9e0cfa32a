//! Sessions of processes, each of which has one terminal at most.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::process::set_sid;

/// Has a command's process lead a session of its own: no terminal reaches it, and no end of one.
pub fn lead_session(command: &mut Command) {
    // SAFETY: between fork and exec it makes one system call, allocates nothing and takes no lock.
    unsafe { command.pre_exec(set_sid) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_leads_a_session_of_its_own() {
        let mut look = crate::process::command("cat");
        lead_session(&mut look);
        let stat = look.arg("/proc/self/stat").output().unwrap().stdout;
        let stat = String::from_utf8(stat).unwrap();
        let words: Vec<&str> = stat.split(' ').collect();
        assert_eq!(words[5], words[0], "{stat}");
    }
}
