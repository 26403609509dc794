//! What `check` has to say.

use serde::{Deserialize, Serialize};
use std::fmt;

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
    /// Line there; 0 when it is about no line.
    pub line: u32,
    /// What is the matter.
    pub reason: String,
    /// What to do.
    pub advice: String,
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
    /// A weak function was changed, of which vmlinux runs another definition.
    #[serde(rename = "SS103")]
    ChangedWeak,
    /// A helper was changed of which copies stay inlined in code that is not replaced.
    #[serde(rename = "SS104")]
    FrozenInline,
    /// A function is gone that vmlinux still calls.
    #[serde(rename = "SS105")]
    Vanished,
    /// A macro, type or variable was changed, and a function that stays in vmlinux depends on it.
    #[serde(rename = "SS106")]
    ChangedUnderOutsider,
    /// A function that stays in vmlinux compiles differently, with nothing in its source to explain it.
    #[serde(rename = "SS201")]
    CompiledDifferently,
    /// Nothing was changed.
    #[serde(rename = "SS202")]
    NothingChanged,
}

impl Code {
    /// How serious it is.
    pub fn severity(self) -> Severity {
        match self {
            Code::ChangedOutsider
            | Code::ChangedInit
            | Code::ChangedWeak
            | Code::FrozenInline
            | Code::Vanished
            | Code::ChangedUnderOutsider => Severity::Refused,
            Code::CompiledDifferently | Code::NothingChanged => Severity::Warning,
        }
    }
}

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
        write!(f, "{} [{}] ", self.severity, self.code)?;
        if !self.symbol.is_empty() {
            write!(f, "{}: ", self.symbol)?;
        }
        write!(f, "{}\n    {}", self.reason, self.advice)
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
        };
        let text = "kernel/sched/core.c:7: refused [SS102] sched_init: it ran at boot\n    undo it";
        assert_eq!(finding.to_string(), text);
        let json = serde_json::to_string(&finding).unwrap();
        assert!(json.contains("\"code\":\"SS102\",\"severity\":\"refused\""), "{json}");
        assert_eq!(serde_json::from_str::<Finding>(&json).unwrap(), finding);
    }
}
