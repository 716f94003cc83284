//! Reads HTTP/1.1 answers of known length, and the forecast in them.

/// The largest deviation allowed, as a share of a row's largest value.
pub(crate) const TOLERANCE: f32 = 1e-4;

/// Where an answer ends and what it says about itself.
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) head_len: usize,
    pub(crate) body_len: usize,
    /// Length of the JSON part when tensors follow in binary.
    json_len: Option<usize>,
}

impl Head {
    pub(crate) fn answer_len(&self) -> usize {
        self.head_len + self.body_len
    }
}

/// `Ok(None)` while the header is incomplete.
pub(crate) fn head(bytes: &[u8]) -> Result<Option<Head>, &'static str> {
    let Some(end) = find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| "header is not text")?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|word| word.parse().ok());
    let (mut body_len, mut json_len) = (None, None);
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        if name.eq_ignore_ascii_case("content-length") {
            body_len = value.trim().parse().ok();
        } else if name.eq_ignore_ascii_case("inference-header-content-length") {
            json_len = value.trim().parse().ok();
        }
    }
    let status = status.ok_or("no status")?;
    let body_len = body_len.ok_or("no content-length")?;
    Ok(Some(Head { status, head_len: end + 4, body_len, json_len }))
}

/// The largest error over rows, or `None` when the body does not hold the expected count of numbers.
pub(crate) fn worst_error(head: &Head, body: &[u8], expected: &[f32], row_len: usize) -> Option<f32> {
    let got: Vec<f32> = match head.json_len {
        Some(json_len) => {
            let tail = body.get(json_len..)?;
            tail.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        }
        None => numbers(body)?,
    };
    if got.len() != expected.len() {
        return None;
    }
    let row_error = |(got, want): (&[f32], &[f32])| {
        let largest = want.iter().fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
        let off =
            got.iter().zip(want).map(|(g, w)| if g.is_finite() { (g - w).abs() } else { f32::INFINITY });
        off.fold(0.0, f32::max) / largest
    };
    Some(got.chunks(row_len).zip(expected.chunks(row_len)).map(row_error).fold(0.0, f32::max))
}

/// The leaves of the first `"data":[…]`, nested or flat.
fn numbers(body: &[u8]) -> Option<Vec<f32>> {
    let start = find(body, b"\"data\"")? + 6;
    let text = std::str::from_utf8(&body[start..]).ok()?;
    let text = text.split('}').next()?;
    let leaves = text.split(|c: char| c == ',' || c == '[' || c == ']' || c == ':' || c.is_whitespace());
    let leaves = leaves.take_while(|leaf| !leaf.starts_with('"')).filter(|leaf| !leaf.is_empty());
    leaves.map(|leaf| leaf.parse().ok()).collect()
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incomplete_header_is_no_header() {
        assert!(head(b"HTTP/1.1 200 OK\r\ncontent-le").is_ok_and(|head| head.is_none()));
    }

    #[test]
    fn flat_data_is_read() {
        check(r#"{"outputs":[{"shape":[1,2,1],"data":[1.5,-2e1]}]}"#, &[1.5, -20.0], Some(0.0));
    }

    #[test]
    fn nested_data_is_read() {
        check(r#"{"outputs":[{"data": [[1], [2]], "shape":[1,2,1]}]}"#, &[1.0, 2.0], Some(0.0));
    }

    #[test]
    fn a_wrong_number_shows() {
        check(r#"{"data":[1.0,2.5]}"#, &[1.0, 2.0], Some(0.25));
    }

    #[test]
    fn a_missing_number_shows() {
        check(r#"{"data":[1.0]}"#, &[1.0, 2.0], None);
    }

    #[track_caller]
    fn check(body: &str, expected: &[f32], want: Option<f32>) {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let head = head(answer.as_bytes()).unwrap().unwrap();
        assert_eq!((head.status, head.answer_len()), (200, answer.len()));
        assert_eq!(worst_error(&head, body.as_bytes(), expected, expected.len()), want);
    }
}
