//! What a long phase is doing, on standard error: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use schedswap_host::progress::Progress;

/// A total above this counts bytes; no phase has as many of anything else.
const SURELY_BYTES: u64 = 1 << 20;

/// Shows the progress of one command.
pub struct Shown {
    terminal: bool,
    current: Mutex<Option<Piece>>,
}

struct Piece {
    what: String,
    began: Instant,
    bar: Option<ProgressBar>,
}

impl Shown {
    /// On the standard error of this process.
    pub fn on_stderr() -> Shown {
        Shown { terminal: std::io::stderr().is_terminal(), current: Mutex::new(None) }
    }

    fn finish(&self, piece: Piece, result: &str) {
        if let Some(bar) = &piece.bar {
            bar.finish_and_clear();
        }
        let took = piece.began.elapsed();
        let result = if result.is_empty() { String::new() } else { format!(": {result}") };
        eprintln!("{}{result} ({})", piece.what, duration(took));
    }
}

impl Progress for Shown {
    fn begin(&self, what: &str, total: Option<u64>) {
        let mut current = self.current.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(unfinished) = current.take() {
            self.finish(unfinished, "");
        }
        let bar = self.terminal.then(|| bar(what, total));
        *current = Some(Piece { what: what.to_owned(), began: Instant::now(), bar });
    }

    fn at(&self, position: u64) {
        let current = self.current.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(Piece { bar: Some(bar), .. }) = &*current {
            bar.set_position(position);
        }
    }

    fn end(&self, result: &str) {
        let mut current = self.current.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(piece) = current.take() {
            self.finish(piece, result);
        }
    }
}

fn bar(what: &str, total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        None => (ProgressBar::new_spinner(), "{spinner} {msg} {elapsed}"),
        Some(total) if total >= SURELY_BYTES => {
            (ProgressBar::new(total), "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
        }
        Some(total) => (ProgressBar::new(total), "{msg} {wide_bar} {pos}/{len} {eta}"),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn duration(took: Duration) -> String {
    match took.as_secs() {
        0..60 => format!("{:.1} s", took.as_secs_f64()),
        _ => HumanDuration(took).to_string(),
    }
}
