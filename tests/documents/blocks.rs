//! What a document holds, read from its Markdown: code blocks with what their info strings say. Pure.

use std::collections::HashMap;

/// One fenced block.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Block {
    /// Line of its opening fence, from 1.
    pub(super) line: usize,
    /// First word of the info string.
    pub(super) language: String,
    /// What follows it: `word` or `key="value"`.
    marks: Vec<(String, String)>,
    pub(super) text: String,
}

impl Block {
    pub(super) fn mark(&self, name: &str) -> Option<&str> {
        self.marks.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn marks(&self) -> impl Iterator<Item = &str> {
        self.marks.iter().map(|(key, _)| key.as_str())
    }
}

/// The blocks of a document, and its lines with those of blocks left empty.
pub(super) struct Document {
    pub(super) blocks: Vec<Block>,
    pub(super) prose: Vec<String>,
}

/// # Errors
/// A fence that is not closed, or an info string that is neither words nor `key="value"`.
pub(super) fn read(text: &str) -> Result<Document, String> {
    let mut document = Document { blocks: Vec::new(), prose: Vec::new() };
    let mut open: Option<Block> = None;
    for (at, line) in text.lines().enumerate() {
        let fence = line.trim_start().strip_prefix("```");
        match (&mut open, fence) {
            (None, Some(info)) => {
                let (language, marks) = info_string(info).ok_or(format!("line {}: `{info}`", at + 1))?;
                open = Some(Block { line: at + 1, language, marks, text: String::new() });
            }
            (Some(block), Some("")) => {
                document.blocks.push(block.clone());
                open = None;
            }
            (Some(block), _) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {
                document.prose.push(line.to_owned());
                continue;
            }
        }
        document.prose.push(String::new());
    }
    match open {
        None => Ok(document),
        Some(block) => Err(format!("the block of line {} has no end", block.line)),
    }
}

/// A language, and what stands behind it.
type Info = (String, Vec<(String, String)>);

fn info_string(info: &str) -> Option<Info> {
    let (language, mut rest) = info.split_once(' ').unwrap_or((info, ""));
    let mut marks = Vec::new();
    while !rest.trim_start().is_empty() {
        rest = rest.trim_start();
        let end = rest.find([' ', '=']).unwrap_or(rest.len());
        let (key, behind) = rest.split_at(end);
        let (value, behind) = match behind.strip_prefix("=\"") {
            Some(quoted) => quoted.split_once('"')?,
            None if behind.starts_with('=') => return None,
            None => ("", behind),
        };
        marks.push((key.to_owned(), value.to_owned()));
        rest = behind;
    }
    Some((language.to_owned(), marks))
}

/// The names under which GitHub links to headings.
pub(super) fn anchors(document: &Document) -> Vec<String> {
    let mut anchors = Vec::new();
    let mut seen = HashMap::<String, usize>::new();
    for line in &document.prose {
        let heading = line.trim_start_matches('#');
        if heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let slug = kept.collect::<String>().to_lowercase().replace(' ', "-");
        let before = seen.entry(slug.clone()).or_default();
        anchors.push(if *before == 0 { slug } else { format!("{slug}-{before}") });
        *before += 1;
    }
    anchors
}

/// Where a document's links lead, with their lines: Markdown's own, and those of `src`, `srcset` and `href`.
pub(super) fn links(document: &Document) -> Vec<(usize, String)> {
    let mut links = Vec::new();
    for (at, line) in document.prose.iter().enumerate() {
        let line = without_code(line);
        for (before, end) in [("](", ')'), ("src=\"", '"'), ("srcset=\"", '"'), ("href=\"", '"')] {
            let found = line.split(before).skip(1).filter_map(|rest| rest.split_once(end));
            links.extend(found.map(|(target, _)| (at + 1, target.to_owned())));
        }
    }
    links
}

/// A line without what stands between backticks.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_read_with_what_their_info_strings_say() {
        let text = "a\n```sh no-run=\"needs a thing\" serve\nx\n\ny\n```\nb\n";
        let document = read(text).unwrap();
        let [block] = &document.blocks[..] else { panic!("{:?}", document.blocks) };
        assert_eq!((block.line, block.language.as_str(), block.text.as_str()), (2, "sh", "x\n\ny\n"));
        assert_eq!((block.mark("no-run"), block.mark("serve")), (Some("needs a thing"), Some("")));
        assert_eq!(document.prose, ["a", "", "", "", "", "", "b"]);
    }

    #[test]
    fn a_fence_that_is_not_closed_and_a_mark_that_is_none_are_mistakes() {
        for wrong in ["```sh\nx\n", "```sh a=b\n```\n", "```sh a=\"b\n```\n"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn anchors_and_links_are_those_of_github() {
        let text = "# A `b-c`: D, e\n## Two\n## Two\n## Two\n[x](y.md#z) `[no](t)` <img src=\"p.png\">\n```sh\n[no](t)\n```\n";
        let document = read(text).unwrap();
        assert_eq!(anchors(&document), ["a-b-c-d-e", "two", "two-1", "two-2"]);
        assert_eq!(links(&document), [(5, "y.md#z".to_owned()), (5, "p.png".to_owned())]);
    }
}
