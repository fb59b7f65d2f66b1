//! What was meant by a command that does not exist.

use clap::Command;

/// How many letters must be changed, added, left out or exchanged with their neighbours to get from one word to another.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for row in 1..=one.len() {
        let mut next = vec![row];
        for column in 1..=other.len() {
            let changed = usize::from(one[row - 1] != other[column - 1]);
            let mut least = (last[column - 1] + changed).min(last[column] + 1).min(next[column - 1] + 1);
            let exchanged =
                row > 1 && column > 1 && one[row - 1] == other[column - 2] && one[row - 2] == other[column - 1];
            if exchanged {
                least = least.min(before[column - 2] + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut last, next);
    }
    last.last().copied().unwrap_or_default()
}

/// The command that is most like a word, if one is.
pub(super) fn nearest<'a>(command: &'a Command, word: &str) -> Option<&'a str> {
    if word.chars().count() > 64 {
        return None;
    }
    let names = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    let names = names.flat_map(|sub| std::iter::once(sub.get_name()).chain(sub.get_visible_aliases()));
    let (least, name) = names.map(|name| (distance(word, name), name)).min_by_key(|(distance, _)| *distance)?;
    (least <= 1 + word.chars().count() / 4).then_some(name)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn letters_that_changed_places_are_understood() {
        assert_eq!(distance("rnu", "run"), 1);
        assert_eq!(distance("", "run"), 3);
        assert_eq!(distance("imagse", "images"), 1);
        let root = crate::commands::Cli::command();
        assert_eq!(nearest(&root, "rnu"), Some("run"));
        assert_eq!(nearest(&root, "imagse"), Some("images"));
        assert_eq!(nearest(root.find_subcommand("network").expect("a group"), "crate"), Some("create"));
        assert_eq!(nearest(&root, "xyzzy"), None);
    }
}
