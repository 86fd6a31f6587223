//! The terminal while the live view is on it, and the signals.
//!
//! Whatever ends the demonstration gives the terminal back as it was: dropping
//! [`Screen`], and a panic before its message is printed.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr};
use std::io::{IsTerminal, Read, Write, stdin, stdout};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::Mutex;

const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[2J";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// How the terminal was before; `None`: it is as it was.
static BEFORE: Mutex<Option<Option<Termios>>> = Mutex::new(None);

/// The terminal, with the live view on it.
pub struct Screen(());

impl Screen {
    /// Takes the terminal; `None` where standard output is none.
    #[must_use]
    pub fn enter() -> Option<Self> {
        if !stdout().is_terminal() {
            return None;
        }
        let before = tcgetattr(stdin()).ok();
        if let Some(before) = &before {
            let mut quiet = before.clone();
            quiet.local_flags.remove(LocalFlags::ECHO | LocalFlags::ICANON);
            // Reading keys does not wait for them.
            quiet.control_chars[SpecialCharacterIndices::VMIN as usize] = 0;
            quiet.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
            let _ = tcsetattr(stdin(), SetArg::TCSANOW, &quiet);
        }
        *BEFORE.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(before);
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            leave();
            hook(panic);
        }));
        write(ENTER);
        Some(Screen(()))
    }

    /// Shows what is drawn.
    pub fn show(&self, drawn: &str) {
        write(drawn);
    }

    /// Whether somebody pressed q.
    #[must_use]
    pub fn quit_pressed(&self) -> bool {
        let mut keys = [0; 16];
        if !stdin().is_terminal() {
            return false;
        }
        let read = stdin().lock().read(&mut keys).unwrap_or(0);
        keys[..read].iter().any(|key| matches!(key, b'q' | b'Q'))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

fn leave() {
    let before = BEFORE.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
    if let Some(before) = before {
        write(LEAVE);
        if let Some(before) = before {
            let _ = tcsetattr(stdin(), SetArg::TCSANOW, &before);
        }
    }
}

fn write(text: &str) {
    // A terminal that is gone is noticed by the hang-up signal.
    let _ = stdout().lock().write_all(text.as_bytes()).and_then(|()| stdout().flush());
}

/// Columns and rows of the terminal; a usual size where it does not tell.
#[must_use]
pub fn size() -> (usize, usize) {
    let output = Command::new("stty").args(["-F", "/dev/tty", "size"]).stdin(Stdio::null()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    parse_size(&text).unwrap_or((80, 24))
}

/// `rows columns`, as stty prints them.
fn parse_size(text: &str) -> Option<(usize, usize)> {
    let (rows, columns) = text.trim().split_once(' ')?;
    let (rows, columns) = (rows.parse().ok()?, columns.parse().ok()?);
    (rows > 0 && columns > 0).then_some((columns, rows))
}

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// To end.
    End,
    /// To look at the terminal's size again.
    Resize,
}

/// Signals as something to be read, on no thread's back.
pub struct Signals(SignalFd);

impl Signals {
    /// Takes over the signals that end a program or resize a terminal. To be called
    /// before any thread is started: threads inherit what is blocked.
    ///
    /// # Errors
    /// The system's reason.
    pub fn take() -> nix::Result<Self> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGWINCH] {
            set.add(signal);
        }
        set.thread_block()?;
        SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map(Signals)
    }

    /// Waits for a signal, at most so many milliseconds.
    #[must_use]
    pub fn wait(&mut self, millis: u16) -> Option<Asked> {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, PollTimeout::from(millis));
        let signal = self.0.read_signal().ok()??;
        let is_resize = signal.ssi_signo == Signal::SIGWINCH as u32;
        Some(if is_resize { Asked::Resize } else { Asked::End })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_is_read_as_stty_prints_it() {
        assert_eq!(parse_size("24 80\n"), Some((80, 24)));
        assert_eq!(parse_size("0 0\n"), None);
        assert_eq!(parse_size(""), None);
        assert_eq!(parse_size("x y"), None);
    }
}
