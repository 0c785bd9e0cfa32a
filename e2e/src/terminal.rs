//! A terminal with a program at it, as a user sits before one: what is typed goes in, what is shown
//! is remembered, and its size can change.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::netns::Net;
use crate::patience::eventually;
use crate::tools;

/// A terminal; dropped, its program is killed.
#[derive(Debug)]
pub struct Terminal {
    master: File,
    program: Child,
    shown: Arc<Mutex<String>>,
}

impl Terminal {
    /// Starts a program in a network, with a terminal of so many columns and lines.
    #[track_caller]
    #[must_use]
    pub fn start(net: &Net, command: &Command, (columns, lines): (u16, u16)) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let seat = ioctl_tiocgptpeer(&master, flags).unwrap();
        tcsetwinsize(&master, size(columns, lines)).unwrap();
        // A change of size is told to the session whose terminal it is.
        let mut seated = Command::new(tools::tool("setsid"));
        seated.arg("--ctty").arg(command.get_program());
        seated.args(command.get_args());
        let again = |seat: &OwnedFd| seat.try_clone().unwrap();
        seated.stdin(again(&seat)).stdout(again(&seat)).stderr(seat);
        let program = net.run(|| seated.spawn().unwrap());
        drop(seated);
        let master = File::from(master);
        let shown = Arc::default();
        let screen = Screen {
            shown: Arc::clone(&shown),
            master: master.try_clone().unwrap(),
        };
        std::thread::spawn(move || screen.watch());
        Self {
            master,
            program,
            shown,
        }
    }

    /// Types.
    pub fn types(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Changes its size.
    pub fn resize(&self, columns: u16, lines: u16) {
        tcsetwinsize(&self.master, size(columns, lines)).unwrap();
    }

    /// A shell in a pty of the container's answers, and follows the size of this one, which begins
    /// with 91 columns and 17 lines.
    #[track_caller]
    pub fn is_one_of_a_shell(&mut self) {
        // The terminal echoes the question, so the answer must not stand in it.
        self.types("tty; stty size; echo $((6*7))\n");
        self.shows("17 91");
        self.shows("/dev/pts/");
        self.shows("42");
        self.resize(120, 40);
        // The change is on its way beside what is typed.
        eventually("the size has changed", || {
            self.types("stty size\n");
            self.shown().contains("40 120")
        });
    }

    /// All that was shown until now.
    #[must_use]
    pub fn shown(&self) -> String {
        self.shown.lock().unwrap().clone()
    }

    /// Waits until it has shown a text.
    #[track_caller]
    pub fn shows(&self, text: &str) {
        let seen = || self.shown().contains(text);
        eventually(&format!("{text:?} is shown"), seen);
    }

    /// Waits for the end of the program.
    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the program has ended", || {
            status = self.program.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the terminal showed\n{}\n---", self.shown());
        }
        self.program.kill().ok();
        self.program.wait().ok();
    }
}

struct Screen {
    master: File,
    shown: Arc<Mutex<String>>,
}

impl Screen {
    /// Reads until the last program at the terminal has gone, which is EIO.
    fn watch(mut self) {
        let mut piece = [0; 4096];
        while let Ok(read @ 1..) = self.master.read(&mut piece) {
            let text = String::from_utf8_lossy(&piece[..read]).into_owned();
            self.shown.lock().unwrap().push_str(&text);
        }
    }
}

fn size(columns: u16, lines: u16) -> Winsize {
    Winsize {
        ws_row: lines,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}
