//! Reading the command lines that Kbuild saves in its `.NAME.o.cmd` files.

/// The value of the `cmd_…` (`savedcmd_…` since 6.2) line, with make's escapes undone.
pub(super) fn saved_command(cmd_file: &str) -> Option<String> {
    let line = cmd_file.lines().find(|line| line.starts_with("cmd_") || line.starts_with("savedcmd_"))?;
    let (_, command) = line.split_once(":=")?;
    // Kbuild's make-cmd writes `$` as `$$` and `#` as `$(pound)`.
    Some(command.replace("$(pound)", "#").replace("$$", "$").trim().to_owned())
}

/// Splits a shell command line into its simple commands, each into words. Knows quotes, backslashes and `;`:
/// what Kbuild uses. `None` when a quote is left open.
pub(super) fn simple_commands(line: &str) -> Option<Vec<Vec<String>>> {
    let mut commands = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '"' => break,
                        '\\' => match chars.next()? {
                            c @ ('"' | '\\' | '$' | '`') => word.push(c),
                            c => word.extend(['\\', c]),
                        },
                        c => word.push(c),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(chars.next()?),
            ';' | '\n' => {
                commands.last_mut()?.extend(word.take());
                commands.push(Vec::new());
            }
            c if c.is_whitespace() => commands.last_mut()?.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    commands.last_mut()?.extend(word);
    commands.retain(|words| !words.is_empty());
    Some(commands)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kbuild_line_becomes_its_commands() {
        let file = "savedcmd_/p/core.o := gcc -DA='\"core\"' -DB=\\\"x\\\" -D'C=a b' -DD=$$x -o core.o core.c  ; ./objtool --orc core.o\n\nsource_x := y\n";
        let commands = simple_commands(&saved_command(file).unwrap()).unwrap();
        assert_eq!(commands.len(), 2);
        assert_eq!(commands[0][1], "-DA=\"core\"");
        assert_eq!(commands[0][2], "-DB=\"x\"");
        assert_eq!(commands[0][3], "-DC=a b");
        assert_eq!(commands[0][4], "-DD=$x");
        assert_eq!(commands[1], ["./objtool", "--orc", "core.o"]);
    }

    #[test]
    fn an_open_quote_is_no_command() {
        assert_eq!(simple_commands("gcc 'a"), None);
        assert_eq!(simple_commands("gcc \"a"), None);
    }

    #[test]
    fn an_empty_quoted_word_is_kept() {
        assert_eq!(simple_commands("a '' b").unwrap(), [["a", "", "b"]]);
    }
}
