//! How a command ends: its exit status, and how an error is shown.

use std::process::ExitCode;

/// How a command that did not fail ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Everything asked for was done.
    Done,
    /// A safety check refused; the findings have been shown.
    Refused,
    /// `try --run`: the script's own exit status.
    Script(u8),
}

const FAILED: u8 = 1;
const REFUSED: u8 = 3;

/// An error that is a safety check's refusal rather than a failure.
#[derive(Debug)]
pub struct Refusal(pub String);

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

/// Shows an error on standard error and yields the exit status.
pub fn report(result: anyhow::Result<Outcome>) -> ExitCode {
    match result {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Refused) => ExitCode::from(REFUSED),
        Ok(Outcome::Script(status)) => ExitCode::from(status),
        Err(error) => {
            let mut shown = Vec::new();
            for cause in error.chain() {
                let text = cause.to_string();
                // A library's error often repeats its source; say everything once.
                if !shown.iter().any(|earlier: &String| earlier.contains(&text)) {
                    shown.push(text);
                }
            }
            eprintln!("schedswap: {}", shown.join(": "));
            ExitCode::from(if error.downcast_ref::<Refusal>().is_some() { REFUSED } else { FAILED })
        }
    }
}
