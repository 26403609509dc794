//! What `check` has to say.

use super::compare::Place;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// One thing that the edit does and that cannot work, or may surprise.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// Which rule.
    pub code: Code,
    /// Whether a module may be built.
    pub severity: Severity,
    /// The function it is about.
    pub symbol: String,
    /// Where, in the edited source (in the pristine one, if it is gone): `kernel/sched/core.c`.
    pub file: String,
    /// Line there; 0 if it is not about a line.
    pub line: u32,
    /// What was found, and why it cannot work.
    pub reason: String,
    /// What to do.
    pub advice: String,
    /// A warning that the author has allowed.
    #[serde(default)]
    pub allowed: bool,
}

/// How serious a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The module would not do what the source says, or would do harm.
    Refused,
    /// The module can be built.
    Warning,
}

/// The rules. Codes are stable: scripts and manifests name them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Code {
    /// A function that stays in vmlinux was changed.
    #[serde(rename = "SS101")]
    ChangedOutsider,
    /// An `__init` function was changed.
    #[serde(rename = "SS102")]
    ChangedInit,
    /// A weak function was changed, but vmlinux runs another definition of it.
    #[serde(rename = "SS103")]
    ChangedWeak,
    /// A helper was changed, and old copies of it stay inlined in code that is not replaced.
    #[serde(rename = "SS104")]
    FrozenInline,
    /// A function that vmlinux still calls is gone.
    #[serde(rename = "SS105")]
    Vanished,
    /// A macro, type or variable was changed, and a function that stays in vmlinux depends on it.
    #[serde(rename = "SS106")]
    ChangedUnderOutsider,
    /// A structure, enumeration or variable has another layout, and other code or older memory knows the old one.
    #[serde(rename = "SS107")]
    ChangedLayout,
    /// A function that vmlinux's code calls has other parameters or another result.
    #[serde(rename = "SS108")]
    ChangedSignature,
    /// The compiler's variant of a function (`.isra.0`) is called in another way than code that stays calls it.
    #[serde(rename = "SS109")]
    ChangedVariant,
    /// A variable that stays in vmlinux was given other initial contents.
    #[serde(rename = "SS110")]
    ChangedInitialValue,
    /// A lock, per-CPU variable or static key of vmlinux became the module's own, or the other way round.
    #[serde(rename = "SS111")]
    MovedVariable,
    /// The address of a new function gets out, and nothing takes it back before the module goes.
    #[serde(rename = "SS112")]
    Escapes,
    /// A system call has other parameters.
    #[serde(rename = "SS113")]
    ChangedSystemCall,
    /// The address of a function that nothing may call by address is taken.
    #[serde(rename = "SS114")]
    TakesSealed,
    /// A function that stays in vmlinux compiles differently, and nothing in its source explains it.
    #[serde(rename = "SS201")]
    CompiledDifferently,
    /// Nothing was changed.
    #[serde(rename = "SS202")]
    NothingChanged,
    /// The address of a new function gets out; a clean-up is registered.
    #[serde(rename = "SS203")]
    EscapesWithCleanUp,
    /// A variable of vmlinux became the module's own, and its value is lost.
    #[serde(rename = "SS204")]
    LostValue,
}

impl Code {
    /// Every code.
    pub const ALL: [Code; 18] = [
        Code::ChangedOutsider,
        Code::ChangedInit,
        Code::ChangedWeak,
        Code::FrozenInline,
        Code::Vanished,
        Code::ChangedUnderOutsider,
        Code::ChangedLayout,
        Code::ChangedSignature,
        Code::ChangedVariant,
        Code::ChangedInitialValue,
        Code::MovedVariable,
        Code::Escapes,
        Code::ChangedSystemCall,
        Code::TakesSealed,
        Code::CompiledDifferently,
        Code::NothingChanged,
        Code::EscapesWithCleanUp,
        Code::LostValue,
    ];

    /// How serious it is.
    pub fn severity(self) -> Severity {
        match self {
            Code::ChangedOutsider
            | Code::ChangedInit
            | Code::ChangedWeak
            | Code::FrozenInline
            | Code::Vanished
            | Code::ChangedUnderOutsider
            | Code::ChangedLayout
            | Code::ChangedSignature
            | Code::ChangedVariant
            | Code::ChangedInitialValue
            | Code::Escapes
            | Code::MovedVariable
            | Code::ChangedSystemCall
            | Code::TakesSealed => Severity::Refused,
            Code::CompiledDifferently | Code::NothingChanged | Code::EscapesWithCleanUp | Code::LostValue => {
                Severity::Warning
            }
        }
    }
}

impl FromStr for Code {
    type Err = UnknownCode;

    fn from_str(text: &str) -> Result<Code, UnknownCode> {
        let found = Code::ALL.into_iter().find(|code| code.to_string().eq_ignore_ascii_case(text));
        found.ok_or_else(|| UnknownCode(text.to_owned()))
    }
}

/// A text that is not the code of a finding.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not the code of a finding; expected one of {all}", all = Code::ALL.map(|code| code.to_string()).join(", "))]
pub struct UnknownCode(String);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // serde's name is the one definition of the code's text.
        self.serialize(f)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Refused => "refused",
            Severity::Warning => "warning",
        })
    }
}

/// As compilers write it: `file:line: severity [code] symbol: reason`, the advice below.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.file.as_str(), self.line) {
            ("", _) => {}
            (file, 0) => write!(f, "{file}: ")?,
            (file, line) => write!(f, "{file}:{line}: ")?,
        }
        if self.allowed {
            return write!(f, "allowed [{}] {}", self.code, self.symbol);
        }
        write!(f, "{} [{}] ", self.severity, self.code)?;
        if !self.symbol.is_empty() {
            write!(f, "{}: ", self.symbol)?;
        }
        write!(f, "{}\n    {}", self.reason, self.advice)
    }
}

/// A finding about a symbol, with its reason and what to do.
pub(super) fn finding(code: Code, symbol: &str, place: Place, (reason, advice): (String, String)) -> Finding {
    Finding {
        code,
        severity: code.severity(),
        symbol: symbol.to_owned(),
        file: place.file,
        line: place.line,
        reason,
        advice,
        allowed: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_as_compilers_do() {
        let finding = Finding {
            code: Code::ChangedInit,
            severity: Severity::Refused,
            symbol: "sched_init".into(),
            file: "kernel/sched/core.c".into(),
            line: 7,
            reason: "it ran at boot".into(),
            advice: "undo it".into(),
            allowed: false,
        };
        let text = "kernel/sched/core.c:7: refused [SS102] sched_init: it ran at boot\n    undo it";
        assert_eq!(finding.to_string(), text);
        let json = serde_json::to_string(&finding).unwrap();
        assert!(json.contains("\"code\":\"SS102\",\"severity\":\"refused\""), "{json}");
        assert_eq!(serde_json::from_str::<Finding>(&json).unwrap(), finding);
    }
}
