//! `tracestate`: what other tracing systems want to be told by whoever comes next. Passed on, never acted on.

use std::sync::Arc;

/// More members than this make the whole field void.
const MEMBERS_MAX: usize = 32;
/// What has to be passed on at least, and is here at most.
const BYTES_MAX: usize = 512;
/// Where something has to go, members longer than this go first.
const MEMBER_BYTES_MAX: usize = 128;
/// Longer fields are not looked at: 32 members of the longest keys and values.
const FIELD_BYTES_MAX: usize = 32 * (256 + 1 + 256 + 1);

/// The members of a `tracestate`, in order, in one text. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceState(Arc<str>);

impl TraceState {
    /// Reads the field from all headers of that name, in order; `None`: there is nothing to pass on, which is also so
    /// when a member is not as it should be. Of more than 512 bytes, whole members are left out.
    #[must_use]
    pub fn parse<'a>(headers: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let mut members: Vec<&str> = Vec::new();
        let mut seen_bytes = 0_usize;
        for header in headers {
            seen_bytes = seen_bytes.saturating_add(header.len());
            if seen_bytes > FIELD_BYTES_MAX {
                return None;
            }
            for member in std::str::from_utf8(header).ok()?.split(',') {
                let member = member.trim_matches([' ', '\t']);
                if member.is_empty() {
                    continue;
                }
                let key = key_of(member)?;
                if members.len() == MEMBERS_MAX || members.iter().any(|known| key_of(known) == Some(key)) {
                    return None;
                }
                members.push(member);
            }
        }
        shorten(&mut members);
        (!members.is_empty()).then(|| Self(members.join(",").into()))
    }

    /// As a header has it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Long members go first, then those at the end, which are the oldest.
fn shorten(members: &mut Vec<&str>) {
    let bytes = |members: &[&str]| members.iter().map(|member| member.len() + 1).sum::<usize>();
    while bytes(members) > BYTES_MAX + 1 {
        match members.iter().rposition(|member| member.len() > MEMBER_BYTES_MAX) {
            Some(at) => drop(members.remove(at)),
            None => drop(members.pop()),
        }
    }
}

/// The key of a member that is as it should be.
fn key_of(member: &str) -> Option<&str> {
    let (key, value) = member.split_once('=')?;
    let value_fits = (1..=256).contains(&value.len())
        && value.bytes().all(|byte| matches!(byte, 0x20..=0x7e) && byte != b',' && byte != b'=');
    let key_fits = match key.split_once('@') {
        None => is_key(key, 256, u8::is_ascii_lowercase),
        Some((tenant, system)) => {
            is_key(tenant, 241, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
                && is_key(system, 14, u8::is_ascii_lowercase)
        }
    };
    (value_fits && key_fits).then_some(key)
}

fn is_key(text: &str, bytes_max: usize, first: impl Fn(&u8) -> bool) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/".contains(&byte);
    text.len() <= bytes_max && text.as_bytes().first().is_some_and(first) && text.bytes().all(plain)
}
