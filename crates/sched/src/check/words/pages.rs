//! The author guide's page about each finding: one text for the guide and for `schedswap explain`.

use crate::check::finding::Code;

impl Code {
    /// The page, in Markdown; its first line is the title.
    pub fn page(self) -> &'static str {
        match self {
            Code::ChangedOutsider => include_str!("../../../../../docs/findings/SS101.md"),
            Code::ChangedInit => include_str!("../../../../../docs/findings/SS102.md"),
            Code::ChangedWeak => include_str!("../../../../../docs/findings/SS103.md"),
            Code::FrozenInline => include_str!("../../../../../docs/findings/SS104.md"),
            Code::Vanished => include_str!("../../../../../docs/findings/SS105.md"),
            Code::ChangedUnderOutsider => include_str!("../../../../../docs/findings/SS106.md"),
            Code::ChangedLayout => include_str!("../../../../../docs/findings/SS107.md"),
            Code::ChangedSignature => include_str!("../../../../../docs/findings/SS108.md"),
            Code::ChangedVariant => include_str!("../../../../../docs/findings/SS109.md"),
            Code::ChangedInitialValue => include_str!("../../../../../docs/findings/SS110.md"),
            Code::MovedVariable => include_str!("../../../../../docs/findings/SS111.md"),
            Code::Escapes => include_str!("../../../../../docs/findings/SS112.md"),
            Code::ChangedSystemCall => include_str!("../../../../../docs/findings/SS113.md"),
            Code::TakesSealed => include_str!("../../../../../docs/findings/SS114.md"),
            Code::CompiledDifferently => include_str!("../../../../../docs/findings/SS201.md"),
            Code::NothingChanged => include_str!("../../../../../docs/findings/SS202.md"),
            Code::EscapesWithCleanUp => include_str!("../../../../../docs/findings/SS203.md"),
            Code::LostValue => include_str!("../../../../../docs/findings/SS204.md"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    #[test]
    fn every_code_has_its_page_and_every_page_a_code() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/findings");
        let pages: BTreeSet<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let codes: BTreeSet<String> = Code::ALL.iter().map(|code| format!("{code}.md")).collect();
        assert_eq!(pages, codes);
        for code in Code::ALL {
            let page = code.page();
            let title = page.lines().next().unwrap();
            assert!(title.starts_with(&format!("# {code}: ")), "{title}");
            assert!(page.contains("\n## What to do\n"), "{code} does not say what to do");
        }
    }
}
