//! Does an output look as a document says? Pure.

/// What stands for anything.
const ANYTHING: char = '…';

/// Whether `got` is `expected`, in which `…` stands for anything. Blanks do not count: documents wrap long lines.
pub(super) fn matches(expected: &str, got: &str) -> bool {
    let bare = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
    let (expected, got) = (bare(expected), bare(got));
    let mut parts = expected.split(ANYTHING);
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = got.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(expected: &str, got: &str, want: bool) {
        assert_eq!(matches(expected, got), want, "{expected:?} against {got:?}");
    }

    #[test]
    fn what_is_the_same_matches() {
        check("a b\n  c", "a bc\n", true);
        check("a", "ab", false);
        check("", "a", false);
    }

    #[test]
    fn an_ellipsis_stands_for_anything_and_the_rest_keeps_its_order() {
        check("a…d", "abcd", true);
        check("a…", "a", true);
        check("…b…c", "abxxc", true);
        check("…c…b…", "abc", false);
        check("a…b", "abc", false);
        check("aa…aa", "aaa", false);
    }
}
