//! What was changed and by whom, from git's log into the changelogs of both formats.

use super::date::Date;
use std::fmt::Write;

/// A commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Commit {
    /// Its hash.
    pub id: String,
    /// Who wrote it.
    pub author: String,
    /// Their email address.
    pub address: String,
    /// When it was committed, in seconds since 1970.
    pub seconds: i64,
    /// First line of its message.
    pub subject: String,
}

/// The package's maintainer, its date, and what was changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Changelog {
    /// `Name <address>`
    pub maintainer: String,
    /// The package's date.
    pub date: Date,
    /// The newest first.
    pub changes: Vec<Change>,
}

/// One change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// `Name <address>`
    pub author: String,
    /// Seconds since 1970.
    pub seconds: u32,
    /// One line.
    pub text: String,
}

/// The author, if git does not know one.
const NOBODY: &str = "schedswap <schedswap@localhost>";
/// Older changes are only in the repository.
const CHANGES_LIMIT: usize = 200;
/// Width of Debian's changelogs.
const WIDTH: usize = 78;

impl Changelog {
    /// From the log, the newest commit first. `unrecorded` stands for what is in the package but in no commit.
    pub fn new(commits: &[Commit], unrecorded: Option<&str>, date: Date) -> Changelog {
        let author = |commit: &Commit| match (commit.author.as_str(), commit.address.as_str()) {
            ("", _) | (_, "") => NOBODY.to_owned(),
            (name, address) => format!("{} <{}>", one_line(name), one_line(address)),
        };
        let maintainer = commits.first().map_or_else(|| NOBODY.to_owned(), author);
        let unrecorded = unrecorded.map(|text| Change {
            author: maintainer.clone(),
            seconds: date.seconds(),
            text: text.to_owned(),
        });
        let recorded = commits.iter().take(CHANGES_LIMIT).map(|commit| Change {
            author: author(commit),
            seconds: u32::try_from(commit.seconds).unwrap_or_default(),
            text: one_line(&commit.subject),
        });
        let changes = unrecorded.into_iter().chain(recorded).collect();
        Changelog { maintainer, date, changes }
    }

    /// Debian's `changelog` (policy 4.4): one entry for the one version, with its changes by author.
    pub fn deb(&self, package: &str, version: &str) -> String {
        let mut text = format!("{package} ({version}) unstable; urgency=medium\n");
        let mut author = &self.maintainer;
        for (index, change) in self.changes.iter().enumerate() {
            if change.author != *author || index == 0 {
                text.push('\n');
            }
            if change.author != *author {
                author = &change.author;
                let _ = writeln!(text, "  [ {} ]", author.split(" <").next().unwrap_or_default());
            }
            text += &wrapped("  * ", "    ", &change.text);
        }
        let _ = write!(text, "\n -- {}  {}\n", self.maintainer, self.date);
        text
    }
}

/// Control characters would end the line in which the text is used.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ").trim().to_owned()
}

/// Fills lines of at most [`WIDTH`] characters; a longer word gets a line of its own.
pub(super) fn wrapped(first: &str, following: &str, words: &str) -> String {
    let (mut text, mut line) = (String::new(), first.to_owned());
    let mut is_empty = true;
    for word in words.split_whitespace() {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            text += &line;
            text.push('\n');
            line = following.to_owned();
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line += word;
        is_empty = false;
    }
    text + &line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(author: &str, seconds: i64, subject: &str) -> Commit {
        Commit {
            id: "0123abc".into(),
            author: author.into(),
            address: format!("{}@example.org", author.to_lowercase()),
            seconds,
            subject: subject.into(),
        }
    }

    fn date(seconds: i64) -> Date {
        Date::of_sources(None, Some(seconds)).unwrap()
    }

    #[test]
    fn the_log_as_debian_writes_it() {
        let long =
            "fair: the one that has waited longest goes first, unless it has been asked by somebody to wait";
        let commits = [
            commit("Ann", 1_000_000_000, long),
            commit("Bob", 999_000_000, "as released"),
            commit("", 1, "x"),
        ];
        let log = Changelog::new(&commits, Some("Changes that are not committed."), date(1_000_000_000));
        assert_eq!(
            log.deb("scheduler-demo-6.1", "1"),
            "scheduler-demo-6.1 (1) unstable; urgency=medium\n\
             \n  * Changes that are not committed.\
             \n  * fair: the one that has waited longest goes first, unless it has been asked\
             \n    by somebody to wait\n\
             \n  [ Bob ]\
             \n  * as released\n\
             \n  [ schedswap ]\
             \n  * x\n\
             \n -- Ann <ann@example.org>  Sun, 09 Sep 2001 01:46:40 +0000\n"
        );
    }

    #[test]
    fn nobody_and_nothing_still_make_a_changelog() {
        let log = Changelog::new(&[], None, date(0));
        assert_eq!(log.maintainer, NOBODY);
        assert!(
            log.deb("x", "1")
                .ends_with(" -- schedswap <schedswap@localhost>  Thu, 01 Jan 1970 00:00:00 +0000\n")
        );
    }

    #[test]
    fn no_text_of_a_commit_adds_a_line() {
        let mut sly = commit("Eve\n -- x", 5, "a\n -- Eve <e@x>  Thu");
        sly.address = "e\n@x".into();
        let text = Changelog::new(&[sly], None, date(5)).deb("x", "1");
        assert_eq!(text.lines().filter(|line| line.starts_with(" -- ")).count(), 1, "{text}");
    }
}
