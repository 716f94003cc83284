//! A query that a path does not take: read past, what the caller meant would be missed without a word.

use super::error::Refusal;
use super::openapi::QUERIES;

/// Refuses any member where a path of `/v1` takes none; those that take some refuse others themselves. The open inference
/// protocol and what monitors ask may be given more than they know.
pub(super) fn refuse_unknown(path: &str, query: &str) -> Result<(), Refusal> {
    let takes_some = || QUERIES.iter().any(|(pattern, ..)| is_of(pattern, path));
    let Some(member) = query.split('&').find(|member| !member.is_empty()) else { return Ok(()) };
    if !path.starts_with("/v1/") || takes_some() {
        return Ok(());
    }
    let name = member.split('=').next().unwrap_or_default();
    let why = format!("unknown field `{}`", name.chars().take(128).collect::<String>());
    Err(Refusal::Query { wanted: "no members", why })
}

/// The first member whose text is none of its type: who reads a query says what is wrong, and not where.
pub(super) fn misread(path: &str, query: &str) -> Option<&'static str> {
    let members = query.split('&').filter_map(|member| member.split_once('='));
    members
        .filter_map(|(name, text)| {
            let (_, name, kind) =
                QUERIES.iter().find(|(pattern, known, _)| *known == name && is_of(pattern, path))?;
            let is_read = match *kind {
                "integer" => text.parse::<u32>().is_ok(),
                "boolean" => text.parse::<bool>().is_ok(),
                _ => true,
            };
            (!is_read).then_some(*name)
        })
        .next()
}

/// Names of series have slashes, no others do.
fn is_of(pattern: &str, path: &str) -> bool {
    let mut segments = path.split('/');
    for part in pattern.split('/') {
        match segments.next() {
            Some(_) if part == "{name}" => return true,
            Some(segment) if part == segment || part.starts_with('{') => {}
            _ => return false,
        }
    }
    segments.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_member_that_cannot_be_read_is_named() {
        for (path, query, named) in [
            ("/v1/series/fx/a", "last=-1", Some("last")),
            ("/v1/series/fx/a", "last=1", None),
            ("/v1/scorecard", "series=x&version=one", Some("version")),
            ("/v1/scorecard", "version=1&steps=yes", Some("steps")),
            ("/v1/scorecard", "last=x", None),
        ] {
            assert_eq!(misread(path, query), named, "{path}?{query}");
        }
    }

    #[test]
    fn only_paths_that_take_a_query_may_have_one() {
        for (path, query, named) in [
            ("/v1/cluster", "", None),
            ("/v1/cluster", "&", None),
            ("/v1/cluster", "x", Some("`x`")),
            ("/v1/forecast", "&model=m&x=1", Some("`model`")),
            ("/v1/models/m/load", "version=1", Some("`version`")),
            ("/v1/models/m/unload", "version=1", None),
            ("/v1/models/m", "version=1", None),
            ("/v1/models", "version=1", Some("`version`")),
            ("/v1/series/fx/a/b", "last=1", None),
            ("/v1/audit/m%2Fs%231", "last=1", Some("`last`")),
            ("/v1/overview/stream", "node=a", None),
            ("/v2/models/m", "x=1", None),
            ("/metrics", "x=1", None),
            ("/v1x", "x=1", None),
        ] {
            let refused = refuse_unknown(path, query).map_err(|refusal| refusal.to_string());
            match (refused, named) {
                (Ok(()), None) => {}
                (Err(said), Some(name)) => assert!(said.contains(name), "{path}?{query}: {said}"),
                (refused, _) => panic!("{path}?{query}: {refused:?}"),
            }
        }
    }
}
