//! Warnings that the author has looked at and allows.

use super::finding::{Code, Finding, Severity, UnknownCode};
use std::fmt;
use std::str::FromStr;

/// One warning to allow: `SS203:poll_timer`, or `SS202` if the warning is not about a symbol.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Allowance {
    code: Code,
    symbol: String,
}

/// Why a text is not an allowance.
#[derive(Debug, thiserror::Error)]
pub enum NotAllowed {
    /// It does not name a code.
    #[error(transparent)]
    Unknown(#[from] UnknownCode),
    /// It names a refusal.
    #[error("{0} is a refusal: the module would not do what its source says, or would do harm. Undo the change (`schedswap explain {0}` says what else can be done); only warnings can be allowed: {warnings}", warnings = warnings())]
    Refusal(Code),
}

fn warnings() -> String {
    let warnings = Code::ALL.into_iter().filter(|code| code.severity() == Severity::Warning);
    warnings.map(|code| code.to_string()).collect::<Vec<_>>().join(", ")
}

impl FromStr for Allowance {
    type Err = NotAllowed;

    fn from_str(text: &str) -> Result<Allowance, NotAllowed> {
        let (code, symbol) = text.split_once(':').unwrap_or((text, ""));
        let code: Code = code.parse()?;
        match code.severity() {
            Severity::Warning => Ok(Allowance { code, symbol: symbol.to_owned() }),
            Severity::Refused => Err(NotAllowed::Refusal(code)),
        }
    }
}

impl fmt::Display for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.symbol.as_str() {
            "" => write!(f, "{}", self.code),
            symbol => write!(f, "{}:{symbol}", self.code),
        }
    }
}

/// Marks the findings that are allowed. Returns allowances that none of them needed.
pub fn allow(findings: &mut [Finding], allowances: &[Allowance]) -> Vec<Allowance> {
    let mut unused = Vec::new();
    for allowance in allowances {
        let mut found = false;
        for finding in findings.iter_mut() {
            if (finding.code, &finding.symbol) == (allowance.code, &allowance.symbol) {
                finding.allowed = true;
                found = true;
            }
        }
        if !found {
            unused.push(allowance.clone());
        }
    }
    unused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_and_an_unknown_code_cannot_be_allowed() {
        let message = |text: &str| text.parse::<Allowance>().unwrap_err().to_string();
        assert!(message("SS101:f").contains("only warnings can be allowed: SS201"), "{}", message("SS101:f"));
        assert!(message("SS999:f").contains("SS999 is not the code of a finding"));
    }

    #[test]
    fn the_warning_of_that_code_and_symbol_is_marked_and_no_other() {
        let finding = |code: Code, symbol: &str| Finding {
            code,
            severity: code.severity(),
            symbol: symbol.into(),
            file: String::new(),
            line: 0,
            reason: String::new(),
            advice: String::new(),
            allowed: false,
        };
        let mut findings =
            [finding(Code::LostValue, "a"), finding(Code::LostValue, "b"), finding(Code::NothingChanged, "")];
        let allowances = ["SS204:a", "ss202", "SS203:a"].map(|text| text.parse().unwrap());
        let unused = allow(&mut findings, &allowances);
        assert_eq!(findings.each_ref().map(|f| f.allowed), [true, false, true]);
        assert_eq!(unused.iter().map(Allowance::to_string).collect::<Vec<_>>(), ["SS203:a"]);
    }
}
