//! From when until when a certificate is good: the one field of X.509 that is read here. The rest of it is for those who
//! check it.
//!
//! DER, of which the walk to the field meets tags and lengths only. Hostile bytes end it; they cannot do more.

use std::time::SystemTime;

use crate::security::{Civil, rfc3339};

const SEQUENCE: u8 = 0x30;
const EXPLICIT_0: u8 = 0xA0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// When a certificate is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    starts: SystemTime,
    ends: SystemTime,
}

/// A certificate that nobody believes now. Whoever issues it acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotNow {
    #[error("it is not valid before {}", rfc3339(*.0))]
    Early(SystemTime),
    #[error("it expired at {}", rfc3339(*.0))]
    Expired(SystemTime),
}

impl Validity {
    pub(crate) fn check(self, now: SystemTime) -> Result<(), NotNow> {
        if now < self.starts {
            return Err(NotNow::Early(self.starts));
        }
        if now > self.ends { Err(NotNow::Expired(self.ends)) } else { Ok(()) }
    }

    /// Until it expires; negative: since then.
    pub(crate) fn remaining_seconds(self, now: SystemTime) -> f64 {
        match self.ends.duration_since(now) {
            Ok(left) => left.as_secs_f64(),
            Err(past) => -past.duration().as_secs_f64(),
        }
    }
}

/// `None`: this is no certificate.
pub(crate) fn of(certificate: &[u8]) -> Option<Validity> {
    let (mut rest, _) = inside(certificate, SEQUENCE)?;
    (rest, _) = inside(rest, SEQUENCE)?;
    if rest.first() == Some(&EXPLICIT_0) {
        (_, rest) = value(rest)?.split(); // the version
    }
    for _ in 0..3 {
        (_, rest) = value(rest)?.split(); // serial number, algorithm, issuer
    }
    let (validity, _) = inside(rest, SEQUENCE)?;
    let start = value(validity)?;
    let end = value(start.rest)?;
    Some(Validity { starts: time(start.tag, start.content)?, ends: time(end.tag, end.content)? })
}

struct Value<'a> {
    tag: u8,
    content: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Value<'a> {
    fn split(self) -> (&'a [u8], &'a [u8]) {
        (self.content, self.rest)
    }
}

fn inside(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    value(bytes).filter(|value| value.tag == tag).map(Value::split)
}

fn value(bytes: &[u8]) -> Option<Value<'_>> {
    let (&[tag, first], mut rest) = bytes.split_first_chunk::<2>()?;
    let mut len = usize::from(first);
    if first >= 0x80 {
        let digits = usize::from(first & 0x7F);
        // More than four digits would be longer than any file that is read.
        let (number, behind) = rest.split_at_checked(digits).filter(|_| (1..=4).contains(&digits))?;
        len = number.iter().fold(0, |len, byte| len << 8 | usize::from(*byte));
        rest = behind;
    }
    let (content, rest) = rest.split_at_checked(len)?;
    Some(Value { tag, content, rest })
}

/// `YYMMDDhhmmssZ`, or with four digits of the year.
fn time(tag: u8, text: &[u8]) -> Option<SystemTime> {
    let text = text.strip_suffix(b"Z")?;
    let number = |digits: &[u8]| {
        let digit = |byte: &u8| byte.is_ascii_digit().then(|| i64::from(byte - b'0'));
        digits.iter().try_fold(0, |number, byte| Some(number * 10 + digit(byte)?))
    };
    let (year, text) = match tag {
        UTC_TIME => {
            let (digits, text) = text.split_at_checked(2)?;
            let year = number(digits)?;
            (if year < 50 { 2000 + year } else { 1900 + year }, text)
        }
        GENERALIZED_TIME => {
            let (digits, text) = text.split_at_checked(4)?;
            (number(digits)?, text)
        }
        _ => return None,
    };
    if text.len() != 10 {
        return None;
    }
    let part = |at: usize| number(&text[at..at + 2]);
    let second = part(4)? * 3600 + part(6)? * 60 + part(8)?;
    Civil { year, month: part(0)?, day: part(2)?, second }.to_system()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn start_and_end_of_a_certificate_are_found() {
        check((2031, 2, 3), 1_927_843_200);
        check((2049, 12, 31), 2_524_521_600);
        check((2051, 1, 1), 2_556_144_000); // written another way from 2050 on
    }

    #[test]
    fn a_certificate_is_good_from_its_start_to_its_end() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let validity = Validity { starts: at(100), ends: at(200) };
        let judged = |seconds| validity.check(at(seconds)).map_err(|error| error.to_string());
        assert_eq!(judged(99), Err("it is not valid before 1970-01-01T00:01:40.000Z".to_owned()));
        assert_eq!((judged(100), judged(200)), (Ok(()), Ok(())));
        assert_eq!(judged(201), Err("it expired at 1970-01-01T00:03:20.000Z".to_owned()));
        assert_eq!((validity.remaining_seconds(at(150)), validity.remaining_seconds(at(260))), (50.0, -60.0));
    }

    #[test]
    fn broken_bytes_have_no_validity() {
        let whole = certificate((2031, 2, 3), (2031, 2, 3));
        for len in 0..whole.len().min(200) {
            assert!(of(&whole[..len]).is_none());
            let mut bent = whole.clone();
            bent[len] ^= 0x5A;
            let _ = of(&bent); // whatever it says, it says it
        }
        assert!(of(&[0x30, 0x84, 0xFF, 0xFF, 0xFF, 0xFF]).is_none());
        assert!(of(&[0x30, 0xFF]).is_none());
    }

    #[track_caller]
    fn check(day: (i32, u8, u8), seconds: u64) {
        let (first, last, want) = ((2001, 1, 1), (2100, 1, 1), UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(of(&certificate(first, day)).map(|validity| validity.ends), Some(want));
        assert_eq!(of(&certificate(day, last)).map(|validity| validity.starts), Some(want));
    }

    fn certificate(first: (i32, u8, u8), last: (i32, u8, u8)) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(first.0, first.1, first.2);
        params.not_after = rcgen::date_time_ymd(last.0, last.1, last.2);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }
}
