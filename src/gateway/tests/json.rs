//! The tokenizer takes what `serde_json` takes, and nothing else.

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;

const JUNK: &[u8] = b"[]{},:\"\\019.eE+- nt\n\x01\xff";
const SEEDS: [&str; 5] = [
    r#"{"a":[1,2.5,-3e2],"b":{"c":null,"d":"x\n\u00e9\"y"},"e":[[],[{}]],"f":true,"g":false}"#,
    r#"[[1,2],[3,4.25e-1]]"#,
    r#" { "k" : [ "" , 0 , -0.0 , "\\" ] } "#,
    r#""lone é string""#,
    "123",
];

#[test]
fn accepts_what_serde_accepts() {
    for text in SEEDS {
        assert!(accepts(text.as_bytes()), "{text}");
    }
}

/// Mutated documents: the verdict agrees with a parser that is trusted (numbers apart: ours reads 1e400).
#[test]
fn mutations_are_judged_as_serde_judges_them() {
    let mut rng = StdRng::seed_from_u64(3);
    for round in 0..200_000 {
        let mut text = SEEDS[round % SEEDS.len()].as_bytes().to_vec();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..text.len());
            match rng.random_range(0..3) {
                0 => drop(text.remove(at)),
                1 => text.insert(at, JUNK[rng.random_range(0..JUNK.len())]),
                _ => text[at] = JUNK[rng.random_range(0..JUNK.len())],
            }
            if text.is_empty() {
                break;
            }
        }
        let serde = serde_json::from_slice::<serde_json::Value>(&text);
        let too_large = serde.as_ref().is_err_and(|error| error.to_string().contains("out of range"));
        if !too_large {
            assert_eq!(accepts(&text), serde.is_ok(), "{}", String::from_utf8_lossy(&text));
        }
    }
}

#[test]
fn leaves_come_in_order_flat_or_nested() {
    check_leaves("[1,2,3,4]", Ok((vec![1.0, 2.0, 3.0, 4.0], 1)));
    check_leaves("[[1,2],[3,4]]", Ok((vec![1.0, 2.0, 3.0, 4.0], 2)));
    check_leaves(" [ 1 , [ 2 , 3 ] , [ ] ] ", Ok((vec![1.0, 2.0, 3.0], 2)));
    check_leaves("[]", Ok((vec![], 1)));
}

#[test]
fn rows_of_one_length_are_told_from_others() {
    for (text, row_len) in [
        ("[]", Some(0)),
        ("[1,2,3]", Some(3)),
        ("[[1,2],[3,4]]", Some(2)),
        ("[ [ 1 ] , [ 2 ] , [ 3 ] ]", Some(1)),
        ("[[],[]]", Some(0)),
        ("[[1,2],[3]]", None),
        ("[[1,2],[]]", None),
        ("[[],[1]]", None),
        ("[1,[2]]", None),
        ("[[1],2]", None),
        ("[[],1]", None),
    ] {
        let got = Cursor::new(text.as_bytes()).leaves(&mut Vec::new(), 2, 4);
        assert_eq!(got.map(|nesting| nesting.row_len), Ok(row_len), "{text}");
    }
}

#[test]
fn leaves_refuse_what_is_no_number() {
    let expected = |at, wanted| Err(JsonError::Expected { at, wanted });
    check_leaves("5", expected(0, "an array of numbers"));
    check_leaves("[1,NaN]", expected(3, "a number"));
    check_leaves("[1,]", expected(3, "a number"));
    check_leaves("[,1]", expected(1, "a number"));
    check_leaves("[1 2]", expected(3, "`,` or `]`"));
    check_leaves("[\"1\"]", expected(1, "a number"));
    check_leaves("[null]", expected(1, "a number"));
    check_leaves("[1", expected(2, "`,` or `]`"));
    check_leaves("[1,2,1e400]", Err(JsonError::Infinite { at: 5, index: 2 }));
    check_leaves("[[[1]]]", Err(JsonError::TooDeep { at: 2, depth_max: 2 }));
    check_leaves("[1,2,3,4,5]", Err(JsonError::TooMany { at: 9, count_max: 4 }));
}

#[test]
fn two_hundred_thousand_brackets_are_refused() {
    let deep = "[".repeat(200_000);
    assert_eq!(Cursor::new(deep.as_bytes()).skip(), Err(JsonError::TooDeep { at: 32, depth_max: 32 }));
    let deep = "{\"a\":".repeat(200_000);
    assert!(matches!(Cursor::new(deep.as_bytes()).skip(), Err(JsonError::TooDeep { .. })));
}

#[test]
fn escapes_are_undone_and_plain_text_is_borrowed() {
    assert_eq!(Cursor::new(br#""a\u0062""#).string(), Ok(Cow::Owned("ab".to_owned())));
    assert!(matches!(Cursor::new(br#""ab""#).string(), Ok(Cow::Borrowed("ab"))));
    assert!(Cursor::new(b"\"\\").string().is_err());
}

fn accepts(text: &[u8]) -> bool {
    let mut cursor = Cursor::new(text);
    cursor.skip().and_then(|()| cursor.end()).is_ok()
}

#[track_caller]
fn check_leaves(text: &str, want: Result<(Vec<f32>, usize), JsonError>) {
    let mut out = Vec::new();
    let got = Cursor::new(text.as_bytes()).leaves(&mut out, 2, 4);
    assert_eq!(got.map(|nesting| (out, nesting.depth)), want, "{text}");
}
