//! How a command ends: its exit status, and how an error is shown.

use schedswap_sdk::{pipeline, workdir};
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
            ExitCode::from(if is_refusal(&error) { REFUSED } else { FAILED })
        }
    }
}

/// Whether a safety check of the library, or the loader's in a guest, refused.
fn is_refusal(error: &anyhow::Error) -> bool {
    let by_work_dir = error.downcast_ref::<workdir::Error>().is_some_and(workdir::Error::is_refusal);
    let by_pipeline = error.downcast_ref::<pipeline::Error>().is_some_and(pipeline::Error::is_refusal);
    let in_guest =
        error.downcast_ref::<schedswap_guest::Error>().is_some_and(schedswap_guest::Error::is_refusal);
    by_work_dir || by_pipeline || in_guest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_safety_check_refuses_is_told_from_what_fails() {
        let source =
            || workdir::Error::WrongSource { found: "6.1.190".into(), banner: "Linux 6.1.192".into() };
        assert!(is_refusal(&source().into()));
        assert!(is_refusal(&anyhow::Error::from(pipeline::Error::Workdir(source()))));
        assert!(is_refusal(&anyhow::Error::from(source()).context("in a context")));
        assert!(is_refusal(&pipeline::Error::Refused(Vec::new()).into()));
        assert!(is_refusal(&workdir::Error::WrongBinding(Vec::new()).into()));
        assert!(!is_refusal(&workdir::Error::NotAWorkDir { path: "/".into() }.into()));
        assert!(!is_refusal(&anyhow::anyhow!("refused")));
    }
}
