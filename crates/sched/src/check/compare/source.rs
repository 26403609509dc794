//! The scheduler's source, pristine or edited, and what differs between two versions of it.

use super::lexer::{self, Item};
use crate::check::CheckError;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// All C files of one version of the scheduler and its sidecars.
#[derive(Debug, Default)]
pub struct SourceTree {
    /// `kernel/sched/core.c` → its top-level items, in order.
    files: BTreeMap<String, Vec<Item>>,
    /// Key → (file, index) of the items called so.
    by_key: HashMap<String, Vec<(String, usize)>>,
}

/// Where something is defined.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// `kernel/sched/core.c`
    pub file: String,
    /// Line of the name.
    pub line: u32,
}

impl SourceTree {
    /// Reads a tree whose root is that of the kernel's source. Links and hidden files are left out.
    ///
    /// # Errors
    /// [`CheckError::Source`] if a file or directory cannot be read.
    pub fn from_root(root: &Path) -> Result<SourceTree, CheckError> {
        let mut texts = Vec::new();
        let mut todo = vec![String::new()];
        while let Some(directory) = todo.pop() {
            let path = root.join(&directory);
            let unreadable = |source| CheckError::Source { path: path.clone(), source };
            for entry in std::fs::read_dir(&path).map_err(unreadable)? {
                let entry = entry.map_err(unreadable)?;
                let kind = entry.file_type().map_err(unreadable)?;
                let Some(name) = entry.file_name().to_str().map(|name| format!("{directory}{name}")) else {
                    continue;
                };
                if kind.is_dir() && !entry.file_name().to_string_lossy().starts_with('.') {
                    todo.push(format!("{name}/"));
                } else if kind.is_file() && is_c(&name) {
                    let bytes = std::fs::read(entry.path()).map_err(unreadable)?;
                    texts.push((name, String::from_utf8_lossy(&bytes).into_owned()));
                }
            }
        }
        Ok(SourceTree::from_texts(texts))
    }

    /// From (path below the root, text).
    pub fn from_texts(texts: impl IntoIterator<Item = (String, String)>) -> SourceTree {
        let mut tree = SourceTree::default();
        for (file, text) in texts {
            let items = lexer::items(lexer::tokens(&text));
            for (index, item) in items.iter().enumerate() {
                tree.by_key.entry(item.key.clone()).or_default().push((file.clone(), index));
            }
            tree.files.insert(file, items);
        }
        tree
    }

    /// The item that covers a line: what debug information calls a definition's place.
    pub fn item_at(&self, file: &str, line: u32) -> Option<&Item> {
        let items = self.files.get(file)?;
        let after = items.partition_point(|item| item.first_line <= line);
        items[..after].last().filter(|item| line <= item.last_line)
    }

    /// Every item with its file.
    pub fn items(&self) -> impl Iterator<Item = (&str, &Item)> {
        self.files.iter().flat_map(|(file, items)| items.iter().map(move |item| (file.as_str(), item)))
    }

    /// Where `name` is defined, preferably in `file`.
    pub fn place_of(&self, name: &str, file: &str) -> Option<Place> {
        let places = self.by_key.get(name)?;
        let functions = || places.iter().filter(|(file, index)| self.files[file][*index].is_function);
        let (file, index) = functions().find(|(of, _)| of == file).or_else(|| functions().next())?;
        Some(Place { file: file.clone(), line: self.files[file][*index].name_line })
    }

    fn named<'a>(&'a self, key: &str) -> impl Iterator<Item = &'a Item> {
        self.by_key.get(key).into_iter().flatten().map(|(file, index)| &self.files[file][*index])
    }
}

fn is_c(name: &str) -> bool {
    name.ends_with(".c") || name.ends_with(".h")
}

/// What became of a definition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// The same tokens.
    Unchanged,
    /// Other tokens, now there.
    Edited(Place),
    /// No definition of that name is left.
    Removed,
}

/// The pristine and the edited source, side by side.
pub struct Sources<'a> {
    /// As the kernel was built.
    pub pristine: &'a SourceTree,
    /// As the developer left it.
    pub edited: &'a SourceTree,
}

impl Sources<'_> {
    /// What became of the definition that debug information puts at `line` of `file`. `Unchanged` for one outside the
    /// tree, which a developer of the scheduler cannot have edited.
    pub fn change(&self, file: &str, line: u32) -> Change {
        let Some(before) = self.pristine.item_at(file, line) else { return Change::Unchanged };
        // A name may be defined more than once, each under another #ifdef: one with the same meaning is enough.
        if self.edited.named(&before.key).any(|after| meaning(after).eq(meaning(before))) {
            return Change::Unchanged;
        }
        match self.edited.place_of(&before.key, file) {
            Some(place) => Change::Edited(place),
            None => Change::Removed,
        }
    }

    /// Whether the definition carries this word, such as `__init`, in either version.
    pub fn has_word(&self, file: &str, line: u32, word: &str) -> bool {
        let before = self.pristine.item_at(file, line);
        before.is_some_and(|item| item.tokens.iter().any(|token| token.text == word))
    }

    /// Where the definition is in the edited source; where it was, if it is gone.
    pub fn place(&self, file: &str, line: u32) -> Place {
        self.pristine
            .item_at(file, line)
            .and_then(|item| self.edited.place_of(&item.key, file))
            .unwrap_or_else(|| Place { file: file.to_owned(), line })
    }

    /// Where a variable is in the edited source, or where it was: `line` of `file`.
    pub fn place_of_variable(&self, name: &str, file: &str, line: u32) -> Place {
        let defines = |item: &Item| {
            !item.is_function && {
                let before_value = item.tokens.iter().take_while(|token| token.text != "=");
                before_value.filter(|token| token.text == name).count() > 0
            }
        };
        let items = || self.edited.files.get(file).into_iter().flatten().filter(|item| defines(item));
        let found = items().find(|item| item.tokens.iter().any(|token| token.text == "=")).or(items().next());
        let line_of = |item: &Item| item.tokens.iter().find(|token| token.text == name).map(|t| t.line);
        match found.and_then(line_of) {
            Some(line) => Place { file: file.to_owned(), line },
            None => self.place(file, line),
        }
    }

    /// The first thing that is not a function's body and differs: a macro, a type, a constant, a variable.
    pub fn changed_declaration(&self) -> Option<Place> {
        for (file, items) in &self.edited.files {
            for item in items.iter().filter(|item| !item.is_function) {
                if !self.pristine.named(&item.key).any(|before| meaning(before).eq(meaning(item))) {
                    return Some(Place { file: file.clone(), line: item.first_line });
                }
            }
        }
        let gone = |item: &Item| {
            !item.is_function && !self.edited.named(&item.key).any(|after| meaning(after).eq(meaning(item)))
        };
        self.pristine.files.iter().find_map(|(file, items)| {
            let item = items.iter().find(|item| gone(item))?;
            Some(Place { file: file.clone(), line: item.first_line })
        })
    }
}

/// Words that say how the compiler places a function, not what the function does: the copies of a helper that are
/// inlined elsewhere stay valid when it becomes `noinline`.
const PLACEMENT: [&str; 6] =
    ["inline", "__always_inline", "noinline", "__maybe_unused", "__noclone", "noinline_for_stack"];

fn meaning(item: &Item) -> impl Iterator<Item = &str> {
    item.tokens.iter().map(|token| token.text.as_str()).filter(|text| !PLACEMENT.contains(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "#define LIMIT 3\n\nstatic inline int helper(int a)\n{\n\treturn a;\n}\n\n\
        int user(void)\n{\n\treturn helper(LIMIT);\n}\n";

    /// What became of the definitions at lines 3 (`helper`) and 8 (`user`), and the first changed declaration.
    fn compare(edited: &str) -> (Change, Change, Option<Place>) {
        let tree = |text: &str| SourceTree::from_texts([("kernel/sched/a.c".to_owned(), text.to_owned())]);
        let (pristine, edited) = (tree(BEFORE), tree(edited));
        let sources = Sources { pristine: &pristine, edited: &edited };
        let file = "kernel/sched/a.c";
        (sources.change(file, 3), sources.change(file, 8), sources.changed_declaration())
    }

    fn at(line: u32) -> Place {
        Place { file: "kernel/sched/a.c".into(), line }
    }

    #[test]
    fn comments_blanks_and_moved_lines_change_nothing() {
        let edited = format!("/* new */\n\n{}", BEFORE.replace("return a;", "return  a; /* same */"));
        assert_eq!(compare(&edited), (Change::Unchanged, Change::Unchanged, None));
    }

    #[test]
    fn an_edited_body_is_found_at_its_new_line() {
        let edited = format!("/* new */\n{}", BEFORE.replace("return a;", "return a + 1;"));
        assert_eq!(compare(&edited), (Change::Edited(at(4)), Change::Unchanged, None));
    }

    #[test]
    fn a_removed_function() {
        let edited = BEFORE.replace("helper(int a)", "other(int a)");
        assert_eq!(compare(&edited).0, Change::Removed);
    }

    #[test]
    fn a_macro_is_a_declaration() {
        assert_eq!(compare(&BEFORE.replace("LIMIT 3", "LIMIT 4")).2, Some(at(1)));
        assert_eq!(compare(&BEFORE.replace("#define LIMIT 3\n", "\n")).2, Some(at(1)));
    }

    #[test]
    fn where_the_compiler_puts_it_is_no_change_of_what_it_does() {
        let edited = BEFORE.replace("static inline int helper", "static noinline int helper");
        assert_eq!(compare(&edited).0, Change::Unchanged);
    }

    #[test]
    fn of_two_definitions_under_ifdef_the_right_one_is_compared() {
        let both =
            "#ifdef A\nint f(void)\n{\n\treturn 1;\n}\n#else\nint f(void)\n{\n\treturn 2;\n}\n#endif\n";
        let tree = |text: &str| SourceTree::from_texts([("kernel/sched/a.c".to_owned(), text.to_owned())]);
        let (pristine, edited) = (tree(both), tree(&both.replace("return 2", "return 3")));
        let sources = Sources { pristine: &pristine, edited: &edited };
        assert_eq!(sources.change("kernel/sched/a.c", 2), Change::Unchanged);
        assert!(matches!(sources.change("kernel/sched/a.c", 7), Change::Edited(_)));
    }
}
