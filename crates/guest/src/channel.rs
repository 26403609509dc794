//! The host's end of the command channel. The other end is `guest-load/src/agent.rs`, which describes the frames.

use super::{Error, Result};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// Must equal the agent's version.
const PROTOCOL: u32 = 1;
/// How many bytes of a file go into one frame: well below what the guest's terminal layer buffers, and only seconds
/// of transfer even where the emulator gets little of the host's time.
pub(super) const PUT_MAX: usize = 8 << 10;
/// A longer frame means that the channel is out of sync.
const FRAME_MAX: usize = 1 << 20;

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// The exit status.
    Exit(i32),
    /// The agent killed it at its time limit.
    Limit,
}

/// What has arrived for one command and has not been taken yet.
#[derive(Default, Debug)]
pub(super) struct Incoming {
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    pub(super) end: Option<End>,
}

#[derive(Default)]
struct Inbox {
    agent: Option<u32>,
    commands: HashMap<u32, Incoming>,
    closed: bool,
}

/// Sends commands and collects the answers.
pub(super) struct Channel {
    out: Mutex<(UnixStream, u32)>,
    inbox: Arc<(Mutex<Inbox>, Condvar)>,
}

impl Channel {
    /// Listens on `stream` until the other end closes it.
    pub(super) fn new(stream: UnixStream) -> Result<Channel> {
        let reading = stream.try_clone().map_err(Error::io("cannot duplicate the agent's socket"))?;
        let inbox = Arc::new((Mutex::new(Inbox::default()), Condvar::new()));
        let shared = inbox.clone();
        thread::spawn(move || {
            let _ = listen(reading, &shared);
            lock(&shared.0).closed = true;
            shared.1.notify_all();
        });
        Ok(Channel { out: Mutex::new((stream, 0)), inbox })
    }

    /// Whether the agent has said hello; `Err` if it is of another version.
    pub(super) fn is_up(&self) -> Result<bool> {
        match lock(&self.inbox.0).agent {
            None => Ok(false),
            Some(PROTOCOL) => Ok(true),
            Some(found) => Err(Error::Protocol { found, expected: PROTOCOL }),
        }
    }

    /// Whether QEMU has closed its end.
    pub(super) fn is_closed(&self) -> bool {
        lock(&self.inbox.0).closed
    }

    /// Sends a shell command; returns its number.
    pub(super) fn run(&self, command: &str, limit: Duration) -> Result<u32> {
        let limit_ms = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
        self.send(b'R', &[&limit_ms.to_le_bytes(), command.as_bytes()])
    }

    /// Sends a file, or a piece of one; returns the number to wait for.
    pub(super) fn put(&self, path: &str, bytes: &[u8], mode: u32, append: bool) -> Result<u32> {
        let len = u16::try_from(path.len()).map_err(|_| Error::Scenario(format!("path too long: {path}")))?;
        let header = [&mode.to_le_bytes()[..], &[append.into()], &len.to_le_bytes()].concat();
        self.send(b'P', &[&header, path.as_bytes(), bytes])
    }

    /// Tells the agent to write the end marker and end the guest.
    pub(super) fn quit(&self, marker: &str) -> Result<u32> {
        self.send(b'Q', &[marker.as_bytes()])
    }

    fn send(&self, kind: u8, parts: &[&[u8]]) -> Result<u32> {
        let payload = parts.concat();
        let mut out = lock(&self.out);
        out.1 += 1;
        let id = out.1;
        lock(&self.inbox.0).commands.insert(id, Incoming::default());
        let frame =
            [&[kind][..], &id.to_le_bytes(), &(payload.len() as u32).to_le_bytes(), &payload].concat();
        // If the guest is gone, the wait for the answer notices it and explains it.
        let _ = out.0.write_all(&frame);
        Ok(id)
    }

    /// Waits for at most `slice`, and takes what has arrived for a command. Once its end is taken, the command is
    /// forgotten.
    pub(super) fn take(&self, id: u32, slice: Duration) -> Incoming {
        let (inbox, changed) = &*self.inbox;
        let nothing_new = |inbox: &mut Inbox| {
            let quiet = |c: &Incoming| c.end.is_none() && c.stdout.is_empty() && c.stderr.is_empty();
            !inbox.closed && inbox.commands.get(&id).is_some_and(quiet)
        };
        let mut inbox = match changed.wait_timeout_while(lock(inbox), slice, nothing_new) {
            Ok((inbox, _)) => inbox,
            Err(poisoned) => poisoned.into_inner().0,
        };
        let Some(incoming) = inbox.commands.get_mut(&id) else { return Incoming::default() };
        let taken = std::mem::take(incoming);
        if taken.end.is_some() {
            inbox.commands.remove(&id);
        }
        taken
    }
}

/// No code panics while it holds one of these locks; even if it did, the data would be complete.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// How the agent's hello begins: kind, number 0, four bytes.
const HELLO: [u8; 9] = [b'H', 0, 0, 0, 0, 4, 0, 0, 0];

/// Reads until the agent's hello. Firmware takes a serial port for a terminal, and writes to it until the kernel
/// starts.
fn skip_to_hello(stream: &mut UnixStream) -> std::io::Result<[u8; 9]> {
    let mut last = [0; 9];
    while last != HELLO {
        last.rotate_left(1);
        stream.read_exact(&mut last[8..])?;
    }
    Ok(last)
}

fn listen(mut stream: UnixStream, inbox: &(Mutex<Inbox>, Condvar)) -> std::io::Result<()> {
    let mut header = skip_to_hello(&mut stream)?;
    loop {
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (id, len) = (word(1), word(5) as usize);
        if len > FRAME_MAX {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        let mut payload = vec![0; len];
        stream.read_exact(&mut payload)?;
        let number = payload.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
        let mut held = lock(&inbox.0);
        match (header[0], held.commands.get_mut(&id)) {
            (b'H', _) => held.agent = number,
            (b'O', Some(command)) => command.stdout.extend(payload),
            (b'E', Some(command)) => command.stderr.extend(payload),
            (b'X', Some(command)) => command.end = Some(End::Exit(number.unwrap_or(u32::MAX) as i32)),
            (b'L', Some(command)) => command.end = Some(End::Limit),
            // Output of a child that outlived its command.
            (b'O' | b'E', None) => {}
            _ => return Err(std::io::ErrorKind::InvalidData.into()),
        }
        drop(held);
        inbox.1.notify_all();
        stream.read_exact(&mut header)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, id: u32, payload: &[u8]) -> Vec<u8> {
        [&[kind][..], &id.to_le_bytes(), &(payload.len() as u32).to_le_bytes(), payload].concat()
    }

    #[test]
    fn output_and_status_are_collected() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let channel = Channel::new(ours).unwrap();
        let id = channel.run("echo", Duration::from_secs(1)).unwrap();
        theirs.write_all(&frame(b'H', 0, &1u32.to_le_bytes())).unwrap();
        theirs.write_all(&frame(b'O', id, b"one")).unwrap();
        let first = channel.take(id, Duration::from_secs(5));
        assert_eq!((first.stdout.as_slice(), first.end), (&b"one"[..], None));
        assert!(channel.is_up().unwrap());
        theirs.write_all(&frame(b'X', id, &7i32.to_le_bytes())).unwrap();
        assert_eq!(channel.take(id, Duration::from_secs(5)).end, Some(End::Exit(7)));
    }

    #[test]
    fn what_firmware_wrote_is_skipped() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let channel = Channel::new(ours).unwrap();
        theirs.write_all(b"\x1b[2J\x1b[01;01HBdsDxe: starting Boot0001\r\nHH\0\0").unwrap();
        theirs.write_all(&frame(b'H', 0, &1u32.to_le_bytes())).unwrap();
        while !channel.is_up().unwrap() {
            assert!(!channel.is_closed());
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn another_version_and_a_lost_step_are_noticed() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let channel = Channel::new(ours).unwrap();
        theirs.write_all(&frame(b'H', 0, &9u32.to_le_bytes())).unwrap();
        theirs.write_all(b"garbage, not a frame").unwrap();
        while !channel.is_closed() {
            thread::sleep(Duration::from_millis(1));
        }
        assert!(matches!(channel.is_up(), Err(Error::Protocol { found: 9, .. })));
    }
}
