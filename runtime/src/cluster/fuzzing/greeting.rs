//! The first bytes of a link.

use bytes::Bytes;

use super::peer::{CLUSTER, Chunks, name, net};
use super::run;
use crate::cluster::greeting;

/// A greeting is refused, or comes from who its credentials say, in this cluster; nothing behind it is lost. The
/// first byte says which end listens, the second how the bytes come.
pub fn greeting(input: &[u8]) -> bool {
    let [end, chunk_bytes, bytes @ ..] = input else { return false };
    run(async {
        let (net, _heard) = net();
        let mut input =
            Chunks { bytes: Bytes::copy_from_slice(bytes), chunk_bytes: usize::from(*chunk_bytes).max(1) };
        let mut said = Vec::new();
        let proven = name("peer");
        let greeted = if end % 2 == 0 {
            greeting::welcome(&net, &proven, &mut input, &mut said).await
        } else {
            greeting::greet(&net, &proven, &mut input, &mut said).await
        };
        match greeted {
            Ok(greeted) => {
                assert_eq!(greeted.identity.id, proven);
                assert!(bytes.windows(CLUSTER.len()).any(|part| part == CLUSTER.as_bytes()));
                let unread = [&greeted.rest[..], &input.bytes[..]].concat();
                assert!(bytes.ends_with(&unread), "what follows the greeting stays as it came");
                assert!(!said.is_empty(), "both ends greet");
                true
            }
            Err(_) => {
                assert!(end % 2 != 0 || said.is_empty(), "nothing is said to whom nobody knows");
                false
            }
        }
    })
}
