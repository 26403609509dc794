//! Packages and signatures, read, installed and verified by the distributions' own tools.

mod contents;
mod fields;
mod install;
mod made;
mod scripts;
mod sdk;
mod signing;

/// A complaint of a tool about a package.
fn assert_has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in:\n{text}");
    }
}
