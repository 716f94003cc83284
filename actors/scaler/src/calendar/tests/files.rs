//! Files of users: what they may say, and what they are told.

use super::{CALENDARS, local, utc};
use crate::calendar::{CalendarError, Calendars, DayKind};

const PLAIN: &str = r#"
zone = "Europe/Paris"
valid = { first = 2026, last = 2026 }
[[sessions]]
days = "mon-fri"
opens = "09:00"
closes = "17:30"
"#;

#[track_caller]
fn check_refused(text: &str, expected: &str) {
    let error = Calendars::built_in().with(&[("mine", text)]).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

/// `PLAIN` with one text for another.
#[track_caller]
fn check_changed(from: &str, to: &str, expected: &str) {
    assert!(PLAIN.contains(from));
    check_refused(&PLAIN.replace(from, to), expected);
}

#[test]
fn a_calendar_of_ones_own_is_found_by_its_name() {
    let calendars = Calendars::built_in().with(&[("xpar", PLAIN)]).unwrap();
    let paris = calendars.get("XPAR").unwrap();
    assert_eq!(paris.name(), "xpar");
    assert_eq!(paris.is_open(utc("2026-07-14T08:00")), Ok(true));
    assert_eq!(calendars.names().count(), 9);
    let error = calendars.get("xams").unwrap_err().to_string();
    assert!(error.contains("`xams`") && error.contains("xnys, xpar, xtks"), "{error}");
}

/// A file that nobody reads would be a calendar that nobody has.
#[test]
fn every_file_that_ships_is_built_in() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/calendars");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let built_in: Vec<String> = CALENDARS.names().map(|name| format!("{name}.toml")).collect();
    assert_eq!(files, built_in);
}

#[test]
fn one_that_comes_with_the_product_can_be_added_to() {
    let more = r#"
        extends = "xnys"
        [[holidays]]
        name = "Snow"
        rule = "2026-02-10"
        [[early_closes]]
        name = "Flood"
        rule = "2026-02-11"
        closes = "11:00"
    "#;
    let calendars = Calendars::built_in().with(&[("xnys", more)]).unwrap();
    let day = |name: &str, date: &str| calendars.get(name).unwrap().day(date.parse().unwrap());
    assert_eq!(day("xnys", "2026-02-10"), Some(DayKind::Closed));
    assert_eq!(day("xnys", "2026-02-11"), Some(DayKind::Short));
    assert_eq!(day("xnys", "2026-12-25"), Some(DayKind::Closed));
    // What was read before stays as it was.
    assert_eq!(day("xnas", "2026-02-10"), Some(DayKind::Full));
}

#[test]
fn files_may_come_in_any_order() {
    let late = r#"
        extends = "early"
        valid = { first = 2026, last = 2030 }
        [[sessions]]
        days = "sat"
        opens = "22:00"
        closes = "02:00"
    "#;
    for files in [[("late", late), ("early", PLAIN)], [("early", PLAIN), ("late", late)]] {
        let calendars = Calendars::built_in().with(&files).unwrap();
        let late = calendars.get("late").unwrap();
        assert_eq!(late.day("2030-06-01".parse().unwrap()), Some(DayKind::Full));
        // The sessions of the base are gone; this one opens on the evening before its day.
        let opens = late.next_sessions(local(late, "2026-11-24T12:00")).next().unwrap().opens;
        assert_eq!(opens, local(late, "2026-11-27T22:00"));
    }
}

#[test]
fn what_waits_for_itself_is_refused() {
    let (one, two) = ("extends = \"two\"", "extends = \"one\"");
    let refused = Calendars::built_in().with(&[("one", one), ("two", two)]).unwrap_err();
    assert_eq!(refused, CalendarError::NoBase { calendar: "one".to_owned(), base: "two".to_owned() });
    check_refused("extends = \"mine\"", "extends = \"mine\": there is no such calendar");
    check_refused("extends = \"xams\"", "extends = \"xams\": there is no such calendar");
}

#[test]
fn a_mistake_is_named_by_key_and_value() {
    check_changed("Europe/Paris", "Europe/Pari", "zone = \"Europe/Pari\" is not a time zone");
    check_changed("first = 2026", "first = 2027", "valid = \"2027 to 2026\" is not");
    check_changed("first = 2026", "first = 1960", "valid = \"1960 to 2026\" is not");
    check_changed("last = 2026", "last = 2099", "valid = \"2026 to 2099\" is not");
    check_changed("mon-fri", "mon-", "sessions[0].days = \"mon-\" is not a weekday");
    check_changed("mon-fri", "fri-mon", "sessions[0].days = \"fri-mon\" is not a weekday");
    check_changed("09:00", "9:00", "sessions[0].opens = \"9:00\" is not a time");
    check_changed("17:30", "17:60", "sessions[0].closes = \"17:60\" is not a time");
    check_changed("17:30", "24:01", "sessions[0].closes = \"24:01\" is not a time");
    check_changed("17:30", "00:00", "sessions[0].closes = \"00:00\" is not an opening before");
    check_changed("09:00", "24:00", "sessions[0].opens = \"24:00\" is not an opening before");
    check_changed("days", "day", "unknown field `day`");
    check_changed("zone = \"Europe/Paris\"", "", "zone is missing");
    check_changed("valid = { first = 2026, last = 2026 }", "", "valid is missing");
    check_refused("zone = \"UTC\"\nvalid = { first = 2026, last = 2026 }", "sessions is missing");
    check_changed("mon-fri\"", "mon-fri\"\nfrom = \"soon\"", "sessions[0].from = \"soon\" is not a date");
    let holiday =
        |name: &str, rule: &str| format!("{PLAIN}[[holidays]]\nname = \"{name}\"\nrule = \"{rule}\"");
    check_refused(&holiday("X", "christmas"), "holidays[0].rule = \"christmas\" is not a day");
    check_refused(&holiday("", "12-25"), "holidays[0].name = \"\" is not a name");
    let early = "[[early_closes]]\nname = \"X\"\nrule = \"12-24\"\ncloses = \"noon\"";
    check_refused(&format!("{PLAIN}{early}"), "early_closes[0].closes = \"noon\" is not a time");
}

#[test]
fn a_file_has_an_end() {
    let holiday = "[[holidays]]\nname = \"X\"\nrule = \"12-25\"\n";
    check_refused(&format!("{PLAIN}{}", holiday.repeat(513)), "holidays has more than 512");
    let session = "[[sessions]]\ndays = \"mon\"\nopens = \"09:00\"\ncloses = \"10:00\"\n";
    check_refused(&format!("{PLAIN}{}", session.repeat(16)), "sessions has more than 16");
    check_refused(&"#".repeat((64 << 10) + 1), "bytes has more than 65536");
    let names: Vec<String> = (0..57).map(|number| format!("c{number}")).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), PLAIN)).collect();
    assert_eq!(Calendars::built_in().with(&files[..56]).unwrap().names().count(), 64);
    let refused = Calendars::built_in().with(&files).unwrap_err();
    assert_eq!(refused, CalendarError::TooManyCalendars { max: 64 });
    for name in ["", "XNYS", "../xnys", &"x".repeat(65)] {
        assert!(Calendars::built_in().with(&[(name, PLAIN)]).is_err());
    }
}

/// In 2026 Paris goes from 02:00 to 03:00 on the 29th of March, and through 02:00 to 03:00 twice on the 25th of October.
#[test]
fn an_hour_that_is_not_there_has_no_session_and_one_that_is_twice_has_a_long_one() {
    let night = PLAIN.replace("mon-fri", "sun").replace("09:00", "02:00").replace("17:30", "03:00");
    let calendars = Calendars::built_in().with(&[("night", &night)]).unwrap();
    let night = calendars.get("night").unwrap();
    let first = |at: &str| night.next_sessions(utc(at)).next().unwrap();
    assert_eq!(first("2026-03-28T00:00").opens, utc("2026-04-05T00:00"));
    let long = first("2026-10-24T00:00");
    assert_eq!((long.opens, long.closes), (utc("2026-10-25T00:00"), utc("2026-10-25T02:00")));
}

/// No text makes it fall over.
#[test]
fn broken_files_are_refused_and_nothing_else() {
    use rand::{RngExt as _, SeedableRng as _};
    let mut rng = rand::rngs::StdRng::seed_from_u64(1);
    let mut refused = 0;
    for _ in 0..3000 {
        let mut bytes = PLAIN.as_bytes().to_vec();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..bytes.len());
            bytes[at] = rng.random_range(32..127);
        }
        let text = String::from_utf8(bytes).unwrap();
        refused += usize::from(CALENDARS.clone().with(&[("mine", &text)]).is_err());
    }
    assert!(refused > 2000, "{refused}");
}
