//! C source as tokens and top-level items, as far as telling changed definitions from unchanged ones needs.
//!
//! It is not a parser: it knows comments, literals, preprocessor lines and brackets, and that the kernel closes a
//! function with a brace in the first column, which holds even where `#ifdef` makes braces uneven.

/// One token. Two texts that differ only in comments, blanks and line breaks give the same tokens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Token {
    /// Its text; a preprocessor line is one token, with single blanks between its parts.
    pub text: String,
    /// Line in the file, from 1.
    pub line: u32,
    /// Whether it starts in the first column.
    pub first_column: bool,
}

impl Token {
    fn is_directive(&self) -> bool {
        self.text.starts_with('#') && self.text.len() > 1
    }

    fn is_identifier(&self) -> bool {
        self.text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
    }
}

/// Operators of more than one character, longest first.
const OPERATORS: [&str; 23] = [
    "<<=", ">>=", "...", "->", "++", "--", "<<", ">>", "<=", ">=", "==", "!=", "&&", "||", "+=", "-=", "*=",
    "/=", "%=", "&=", "|=", "^=", "##",
];

/// Splits a file into tokens. Text that is not C gives some tokens too, never an error.
pub fn tokens(source: &str) -> Vec<Token> {
    Lexer { rest: source, line: 1, first_column: true, line_start: true }.run()
}

struct Lexer<'a> {
    rest: &'a str,
    line: u32,
    /// Nothing stands before `rest` in its line.
    first_column: bool,
    /// Only blanks and comments stand before `rest` in its line.
    line_start: bool,
}

impl<'a> Lexer<'a> {
    fn run(mut self) -> Vec<Token> {
        let mut tokens = Vec::new();
        while let Some(c) = self.skip_blanks() {
            let (line, first_column) = (self.line, self.first_column);
            let text = if c == '#' && self.line_start { self.directive() } else { self.plain(c).to_owned() };
            self.line_start = false;
            tokens.push(Token { text, line, first_column });
        }
        tokens
    }

    /// Takes `bytes` bytes, counting lines.
    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.line += taken.matches('\n').count() as u32;
        if !taken.is_empty() {
            self.first_column = taken.ends_with('\n');
        }
        self.rest = rest;
        taken
    }

    /// Skips blanks, comments and continued lines; the next character, if any.
    fn skip_blanks(&mut self) -> Option<char> {
        loop {
            let c = self.rest.chars().next()?;
            if c == '\n' {
                self.take(1);
                self.line_start = true;
            } else if c.is_whitespace() {
                self.take(c.len_utf8());
            } else if let Some(length) = comment_or_continuation(self.rest) {
                self.take(length);
            } else {
                return Some(c);
            }
        }
    }

    /// One preprocessor line with its continuations.
    fn directive(&mut self) -> String {
        let mut parts: Vec<&str> = Vec::new();
        while let Some(c) = self.rest.chars().next().filter(|c| *c != '\n') {
            if c.is_whitespace() {
                self.take(c.len_utf8());
            } else if let Some(length) = comment_or_continuation(self.rest) {
                self.take(length);
            } else {
                parts.push(self.plain(c));
            }
        }
        // `#define f (x)` and `#define f(x)` differ, and a blank is the difference.
        parts.join(" ")
    }

    fn plain(&mut self, first: char) -> &'a str {
        let rest = self.rest;
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let length = if first == '"' || first == '\'' {
            literal_length(rest, first)
        } else if word(first) {
            rest.find(|c| !word(c)).unwrap_or(rest.len())
        } else if let Some(operator) = OPERATORS.iter().find(|operator| rest.starts_with(**operator)) {
            operator.len()
        } else {
            first.len_utf8()
        };
        self.take(length)
    }
}

/// Length of a comment or a continued line end at the start of `text`.
fn comment_or_continuation(text: &str) -> Option<usize> {
    if let Some(comment) = text.strip_prefix("/*") {
        Some(comment.find("*/").map_or(text.len(), |end| end + 4))
    } else if text.starts_with("//") {
        Some(text.find('\n').unwrap_or(text.len()))
    } else {
        ["\\\n", "\\\r\n"].iter().find(|end| text.starts_with(**end)).map(|end| end.len())
    }
}

/// Length of a string or character literal, which ends with its line if it is not closed.
fn literal_length(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\n' => return at,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// One top-level item: a function, or a declaration, or a preprocessor line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    /// What it is called: the function's name, for a macro that defines a function the macro with its first
    /// argument (`SYSCALL_DEFINE1(nice`); for anything else, its first identifiers.
    pub key: String,
    /// Whether it is a function with a body.
    pub is_function: bool,
    /// Line of its first token.
    pub first_line: u32,
    /// Line of its last token.
    pub last_line: u32,
    /// Line of its name.
    pub name_line: u32,
    /// Its tokens.
    pub tokens: Vec<Token>,
}

/// Groups tokens into top-level items.
pub fn items(tokens: Vec<Token>) -> Vec<Item> {
    let mut items = Vec::new();
    let mut grouping = Grouping::default();
    for token in tokens {
        if grouping.ends_before(&token) {
            items.extend(grouping.finish());
        }
        if grouping.push(token) {
            items.extend(grouping.finish());
        }
    }
    items.extend(grouping.finish());
    items
}

#[derive(Default)]
struct Grouping {
    tokens: Vec<Token>,
    parens: i32,
    braces: i32,
    /// A parenthesis was closed outside of braces, so that a `{` may begin a function's body.
    had_parens: bool,
    /// An `=` stands outside of brackets: what follows is an initial value.
    initialised: bool,
    in_body: bool,
}

impl Grouping {
    /// A macro invocation without a semicolon (`SCHED_FEAT(A, true)`) ends where the next line begins in the
    /// first column, unless that continues it with an attribute (`__acquires(lock)`).
    fn ends_before(&self, next: &Token) -> bool {
        let outside = self.parens == 0 && self.braces == 0;
        let last = self.tokens.last();
        outside
            && next.first_column
            && (next.is_directive() || (next.is_identifier() && !next.text.starts_with("__")))
            && last.is_some_and(|last| last.text == ")" || last.is_directive())
    }

    /// Adds a token and says whether it ends the item.
    fn push(&mut self, token: Token) -> bool {
        let text = token.text.as_str();
        let mut ends = false;
        match text {
            "(" | "[" => self.parens += 1,
            ")" | "]" => {
                self.parens -= 1;
                self.had_parens |= self.parens == 0 && self.braces == 0;
            }
            "=" => self.initialised |= self.parens == 0 && self.braces == 0,
            "{" => {
                self.in_body |= self.braces == 0 && self.parens == 0 && self.had_parens && !self.initialised;
                self.braces += 1;
            }
            "}" => {
                // In the first column: whatever `#else` branches did to the count, this is the end.
                self.braces = if token.first_column { 0 } else { self.braces - 1 };
                if self.braces <= 0 {
                    (self.braces, self.parens) = (0, 0);
                    ends = self.in_body;
                }
            }
            ";" => ends = self.braces == 0 && self.parens <= 0,
            _ => ends = token.is_directive() && self.tokens.is_empty(),
        }
        self.tokens.push(token);
        ends
    }

    fn finish(&mut self) -> Option<Item> {
        let group = std::mem::take(self);
        let (first, last) = (group.tokens.first()?, group.tokens.last()?);
        let (key, name_line) = name_of(&group.tokens, group.in_body);
        Some(Item {
            key,
            is_function: group.in_body,
            first_line: first.line,
            last_line: last.line,
            name_line,
            tokens: group.tokens,
        })
    }
}

/// Attributes with arguments, which may stand before a function's name.
const ATTRIBUTES: [&str; 6] =
    ["__attribute__", "__printf", "__aligned", "__section", "__noreturn", "__alloc_size"];

fn name_of(tokens: &[Token], is_function: bool) -> (String, u32) {
    let called = tokens.windows(2).position(|pair| {
        pair[1].text == "(" && pair[0].is_identifier() && !ATTRIBUTES.contains(&pair[0].text.as_str())
    });
    match called {
        Some(at) if is_function => {
            let name = &tokens[at];
            let is_macro = !name.text.contains(|c: char| c.is_ascii_lowercase());
            let key = match tokens.get(at + 2) {
                Some(argument) if is_macro => format!("{}({}", name.text, argument.text),
                _ => name.text.clone(),
            };
            (key, name.line)
        }
        _ => {
            let words = tokens.iter().filter(|t| t.is_identifier() || t.is_directive()).take(4);
            let key = words.map(|t| t.text.as_str()).collect::<Vec<_>>().join(" ");
            (key, tokens.first().map_or(0, |t| t.line))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(source: &str) -> Vec<String> {
        tokens(source).into_iter().map(|token| token.text).collect()
    }

    fn functions(source: &str) -> Vec<(String, u32, u32)> {
        let items = items(tokens(source)).into_iter().filter(|item| item.is_function);
        items.map(|item| (item.key, item.first_line, item.last_line)).collect()
    }

    #[test]
    fn comments_blanks_and_line_breaks_are_no_tokens() {
        let a = "int f(void)\n{\n\treturn a->b /* why */ + 1; // more\n}\n";
        let b = "int\nf ( void ) {return a -> b+1 ;\\\n}";
        assert_eq!(texts(a), texts(b));
    }

    #[test]
    fn what_changes_the_meaning_changes_the_tokens() {
        for (a, b) in [("a + +b", "a ++b"), ("\"a b\"", "\"a  b\""), ("x>>=1", "x>> =1"), ("'/*'", "'/'")] {
            assert_ne!(texts(a), texts(b), "{a} and {b}");
        }
    }

    #[test]
    fn a_quote_in_a_comment_and_a_comment_in_a_string() {
        assert_eq!(texts("/* don't */ x"), ["x"]);
        assert_eq!(texts("\"/* no \\\" comment */\" x"), ["\"/* no \\\" comment */\"", "x"]);
    }

    #[test]
    fn functions_with_their_lines() {
        let source = "\
#include <linux/x.h>
struct foo { int (*f)(void); };
static struct foo table = { .f = (void *)0 };
DEFINE_PER_CPU(int, counter);
static inline
int one(struct foo *foo)
__acquires(lock)
{
\treturn 1;
}
EXPORT_SYMBOL(one);
static int two(void) { return 2; }
SYSCALL_DEFINE1(nice, int, increment)
{
\treturn two();
}
";
        let expected = [
            ("one".to_owned(), 5, 10),
            ("two".to_owned(), 12, 12),
            ("SYSCALL_DEFINE1(nice".to_owned(), 13, 16),
        ];
        assert_eq!(functions(source), expected);
    }

    #[test]
    fn a_function_ends_in_the_first_column_though_ifdef_makes_braces_uneven() {
        let source = "\
void one(int a)
{
#ifdef CONFIG_SMP
\tif (a) {
#else
\tif (!a) {
#endif
\t\tb();
\t}
}
void two(void)
{
}
";
        assert_eq!(functions(source), [("one".to_owned(), 1, 10), ("two".to_owned(), 11, 13)]);
    }

    #[test]
    fn macros_without_semicolon_are_items_of_their_own() {
        let source = "SCHED_FEAT(A, true)\nSCHED_FEAT(B, false)\nstatic void f(void)\n{\n}\n";
        assert_eq!(items(tokens(source)).len(), 3);
        assert_eq!(functions(source), [("f".to_owned(), 3, 5)]);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_nothing_is_lost(source in "[a-z{}()\\[\\];=#\"'/*\\\\\n \tä]{0,200}") {
            let tokens = tokens(&source);
            let count = tokens.len();
            let items = items(tokens);
            prop_assert_eq!(items.iter().map(|item| item.tokens.len()).sum::<usize>(), count);
        }
    }
}
