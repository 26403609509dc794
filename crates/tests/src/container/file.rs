//! Reading a `Containerfile`, as far as ours goes: what is not understood is an error, so nothing in it is skipped.

use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;

/// From one `FROM` to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The image that it starts from.
    pub base: String,
    /// What later stages call it.
    pub name: Option<String>,
    /// In order.
    pub steps: Vec<Step>,
}

/// One instruction of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// `WORKDIR`
    WorkDir(String),
    /// `COPY`
    Copy(Copied),
    /// `RUN`, a line for the shell.
    Run(String),
}

/// What `COPY` copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The stage that it is taken from; none for the checkout.
    pub from: Option<String>,
    /// A directory or file there.
    pub source: String,
    /// Where to.
    pub to: String,
}

/// The stages of a `Containerfile`, made with these build arguments.
///
/// # Errors
/// When there is an instruction, or a form of one, that this does not know.
pub fn parse(text: &str, arguments: &[(&str, &str)]) -> Result<Vec<Stage>> {
    let mut known: BTreeMap<&str, &str> = BTreeMap::new();
    let mut stages: Vec<Stage> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        let (instruction, rest) =
            line.split_once(' ').with_context(|| format!("not an instruction: {line}"))?;
        let words: Vec<&str> = rest.split_whitespace().collect();
        if instruction == "ARG" || instruction == "FROM" {
            match (instruction, &words[..]) {
                ("ARG", [argument]) if stages.is_empty() => {
                    let (name, default) = argument.split_once('=').with_context(|| line.to_owned())?;
                    let given = arguments.iter().find(|(given, _)| *given == name);
                    known.insert(name, given.map_or(default, |(_, value)| value));
                }
                ("FROM", [base]) => stages.push(Stage::new(base, None, &known)?),
                ("FROM", [base, "AS", name]) => stages.push(Stage::new(base, Some(name), &known)?),
                _ => bail!("a form of {instruction} that is not known: {line}"),
            }
            continue;
        }
        let stage = stages.last_mut().with_context(|| format!("before the first FROM: {line}"))?;
        stage.steps.push(match (instruction, &words[..]) {
            ("WORKDIR", [dir]) => Step::WorkDir((*dir).to_owned()),
            ("COPY", [source, to]) if !source.starts_with("--") => Step::Copy(Copied::new(None, source, to)),
            ("COPY", [option, source, to]) => {
                let from = option.strip_prefix("--from=").with_context(|| line.to_owned())?;
                Step::Copy(Copied::new(Some(from), source, to))
            }
            ("RUN", [_, ..]) if !rest.starts_with(['[', '-']) && !rest.ends_with('\\') => {
                Step::Run(rest.to_owned())
            }
            _ => bail!("an instruction, or a form of one, that is not known: {line}"),
        });
    }
    if let Some((unknown, _)) = arguments.iter().find(|(name, _)| !known.contains_key(name)) {
        bail!("there is no ARG {unknown}");
    }
    ensure!(!stages.is_empty(), "there is no FROM");
    Ok(stages)
}

impl Stage {
    fn new(base: &str, name: Option<&str>, arguments: &BTreeMap<&str, &str>) -> Result<Stage> {
        let base = match base.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) {
            Some(argument) => {
                arguments.get(argument).with_context(|| format!("no ARG before FROM {base}"))?
            }
            None => base,
        };
        ensure!(!base.contains('$'), "FROM {base}");
        Ok(Stage { base: base.to_owned(), name: name.map(str::to_owned), steps: Vec::new() })
    }
}

impl Copied {
    fn new(from: Option<&str>, source: &str, to: &str) -> Copied {
        Copied { from: from.map(str::to_owned), source: source.to_owned(), to: to.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "# a comment\nARG BASE=a:1\n\nFROM a:1 AS first\nWORKDIR /w\nCOPY . .\nRUN ./x --y\nFROM ${BASE}\n\
         COPY --from=first /w/out /packages\n";

    #[test]
    fn stages_steps_and_arguments() {
        let copied = |from, source, to| Step::Copy(Copied::new(from, source, to));
        let steps = vec![Step::WorkDir("/w".into()), copied(None, ".", "."), Step::Run("./x --y".into())];
        let first = Stage { base: "a:1".into(), name: Some("first".into()), steps };
        let steps = vec![copied(Some("first"), "/w/out", "/packages")];
        let second = Stage { base: "a:1".into(), name: None, steps };
        assert_eq!(parse(TWO, &[]).unwrap(), [first.clone(), second.clone()]);
        let other = Stage { base: "b:2".into(), ..second };
        assert_eq!(parse(TWO, &[("BASE", "b:2")]).unwrap(), [first, other]);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for text in [
            "",
            "RUN x\n",
            "FROM ${BASE}\n",
            "FROM a:1\nENV A=b\n",
            "FROM a:1\nADD x y\n",
            "FROM a:1\nRUN [\"x\"]\n",
            "FROM a:1\nRUN --mount=type=cache x\n",
            "FROM a:1\nRUN x && \\\n  y\n",
            "FROM a:1\nCOPY --chown=1 x y\n",
            "FROM a:1\nCOPY x y z\n",
        ] {
            assert!(parse(text, &[]).is_err(), "{text}");
        }
        assert!(parse(TWO, &[("BASIS", "b:2")]).is_err());
    }
}
