//! The cases of W3C Trace Context, level 1, as data.

use super::*;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

#[test]
fn a_traceparent_is_read_and_printed() {
    for (flags, sampled) in [("01", true), ("00", false), ("03", true), ("fe", false), ("ff", true)] {
        let text = format!("00-{TRACE}-{SPAN}-{flags}");
        let context = TraceContext::parse(text.as_bytes()).unwrap_or_else(|| panic!("{text}"));
        assert_eq!((context.trace.to_string(), context.span.to_string()), (TRACE.into(), SPAN.into()));
        assert_eq!(context.sampled, sampled, "{text}");
        let printed = context.traceparent();
        assert_eq!(printed, format!("00-{TRACE}-{SPAN}-0{}", u8::from(sampled)));
        assert_eq!(TraceContext::parse(printed.as_bytes()), Some(context));
    }
}

#[test]
fn what_is_no_traceparent_is_none() {
    for text in [
        String::new(),
        "00".to_owned(),
        format!("00-{TRACE}-{SPAN}"),
        format!("00-{TRACE}-{SPAN}-"),
        format!("00-{TRACE}-{SPAN}-1"),
        format!("00-{TRACE}-{SPAN}-01-"),
        format!("00-{TRACE}-{SPAN}-01-more"),
        format!("00-{TRACE}-{SPAN}-01 "),
        format!(" 00-{TRACE}-{SPAN}-01"),
        format!("0-{TRACE}-{SPAN}-01"),
        format!("ff-{TRACE}-{SPAN}-01"),
        format!("0g-{TRACE}-{SPAN}-01"),
        format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
        format!("00-{TRACE}-{}-01", SPAN.to_uppercase()),
        format!("00-{TRACE}-{SPAN}-0G"),
        format!("00_{TRACE}-{SPAN}-01"),
        format!("00-{TRACE}_{SPAN}-01"),
        format!("00-{TRACE}-{SPAN}_01"),
        format!("00-{}-{SPAN}-01", "0".repeat(32)),
        format!("00-{TRACE}-{}-01", "0".repeat(16)),
        format!("00-{}-{SPAN}-01", &TRACE[1..]),
        "é".repeat(30),
    ] {
        assert_eq!(TraceContext::parse(text.as_bytes()), None, "{text}");
    }
}

#[test]
fn a_later_version_is_read_as_far_as_it_is_known() {
    for (text, is_known) in [
        (format!("cc-{TRACE}-{SPAN}-01"), true),
        (format!("cc-{TRACE}-{SPAN}-01-what-the-future-brings"), true),
        (format!("cc-{TRACE}-{SPAN}-01."), false),
        (format!("cc-{TRACE}-{SPAN}-01what"), false),
    ] {
        let context = TraceContext::parse(text.as_bytes());
        assert_eq!(context.is_some(), is_known, "{text}");
        if let Some(context) = context {
            assert_eq!(&context.traceparent()[..2], "00", "ours is version 00");
        }
    }
}

#[test]
fn frames_carry_what_is_recorded() {
    let context = TraceContext::parse(format!("00-{TRACE}-{SPAN}-01").as_bytes()).unwrap();
    let (trace, span) = TraceContext::for_frame(Some(context));
    assert_eq!(TraceContext::from_frame(trace, span), Some(context));
    let quiet = TraceContext { sampled: false, ..context };
    assert_eq!(TraceContext::for_frame(Some(quiet)), ([0; 16], [0; 8]));
    assert_eq!(TraceContext::from_frame([0; 16], [0; 8]), None);
    assert_eq!(TraceContext::from_frame([1; 16], [0; 8]), None);
}

#[test]
fn a_tracestate_is_passed_on_in_order() {
    state(&["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"], Some("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"));
    state(&["a=1", "b=2"], Some("a=1,b=2"));
    state(&[" a=1 ,\tb=2 ,, "], Some("a=1,b=2"));
    state(&["fw529a3039@dt=FfYzZjEwZT,0x@a-b_c*/9=1"], Some("fw529a3039@dt=FfYzZjEwZT,0x@a-b_c*/9=1"));
    state(&["a=in between"], Some("a=in between"));
    state(&[], None);
    state(&["", " ,"], None);
}

#[test]
fn one_bad_member_voids_a_tracestate() {
    for text in [
        "a",
        "=1",
        "a=",
        "a=1=2",
        "A=1",
        "1a=1",
        "a@=1",
        "@a=1",
        "a@b@c=1",
        "a@1=1",
        "a=1,a=2",
        "a=\u{e9}",
        "a=1;b\n=2",
        "a b=1",
    ] {
        state(&[text], None);
    }
    state(&[&format!("{}=1", "k".repeat(256))], Some(&format!("{}=1", "k".repeat(256))));
    state(&[&format!("{}=1", "k".repeat(257))], None);
    state(&[&format!("a={}", "v".repeat(256))], Some(&format!("a={}", "v".repeat(256))));
    state(&[&format!("a={}", "v".repeat(257))], None);
    let many = |count: usize| (0..count).map(|at| format!("k{at}=1")).collect::<Vec<_>>().join(",");
    state(&[&many(32)], Some(&many(32)));
    state(&[&many(33)], None);
}

#[test]
fn a_long_tracestate_loses_long_members_then_old_ones() {
    let long = format!("long={}", "x".repeat(200));
    let short: Vec<String> = (0..20).map(|at| format!("k{at:02}={}", "v".repeat(26))).collect();
    let field = format!("{},{long},{}", short[..10].join(","), short[10..].join(","));
    // 31 bytes and a comma each: 16 of them are 511.
    state(&[&field], Some(&short[..16].join(",")));
    state(&[&"a".repeat(40_000)], None);
}

#[track_caller]
fn state(headers: &[&str], want: Option<&str>) {
    let got = TraceState::parse(headers.iter().map(|header| header.as_bytes()));
    assert_eq!(got.as_ref().map(TraceState::as_str), want, "{headers:?}");
}
