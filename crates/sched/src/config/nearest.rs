//! The name that was probably meant.

/// The one of `names` that is nearest to `name`, if it is near enough to be a slip of the finger.
pub(super) fn nearest<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let farthest = name.len() / 3;
    names
        .filter(|other| other.len().abs_diff(name.len()) <= farthest)
        .map(|other| (distance(name.as_bytes(), other.as_bytes()), other))
        .filter(|(distance, _)| *distance <= farthest)
        .min()
        .map(|(_, other)| other)
}

/// `, did you mean x?`, or nothing.
pub(crate) fn hint<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> String {
    nearest(name, names).map_or(String::new(), |other| format!("; did you mean {other}?"))
}

/// How many characters must be inserted, left out or replaced (Levenshtein).
fn distance(one: &[u8], other: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_told_from_other_names() {
        let names = || ["try_to_wake_up", "wake_up_process", "sched_fork"].into_iter();
        assert_eq!(nearest("try_to_wakeup", names()), Some("try_to_wake_up"));
        assert_eq!(nearest("sched_frok", names()), Some("sched_fork"));
        assert_eq!(nearest("kthread_create", names()), None);
        assert_eq!(distance(b"kitten", b"sitting"), 3);
        assert_eq!(distance(b"", b"abc"), 3);
    }
}
