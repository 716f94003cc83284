//! Text that may be packed, as it was before.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// What `text` says, plain or gzip; gzip is known by its first bytes.
///
/// # Errors
/// When the first bytes cannot be read.
pub(crate) fn unpacked<'a>(text: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut text = BufReader::new(text);
    let is_gzip = text.fill_buf()?.starts_with(&GZIP_MAGIC);
    Ok(if is_gzip { Box::new(MultiGzDecoder::new(text)) } else { Box::new(text) })
}
