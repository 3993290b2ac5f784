//! RFC 6455's frames: what a header may say, and the mask. Knows no socket.

use async_tungstenite::tungstenite::protocol::frame::FrameHeader;
use async_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// The longest header: flags and opcode, 64 bits of length, the mask.
pub(super) const MAX_HEADER: usize = 14;
/// The longest payload of a control frame.
pub(super) const MAX_CONTROL: usize = 125;
/// Bytes that a buffer begins with; it grows with what comes, not with what is announced.
pub(super) const FIRST: usize = 4096;

/// Which side of the connection this is. A client masks what it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Client,
    Server,
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text, which is UTF-8.
    Text,
    /// Bytes.
    Binary,
}

impl From<Kind> for Data {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Text => Self::Text,
            Kind::Binary => Self::Binary,
        }
    }
}

/// What is taken of data frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rules {
    /// Whole messages up to the protocol's limit. Some gateways turn text into binary messages: either is taken as text.
    Messages {
        /// Bytes so far of the message that comes in several frames.
        joined: u64,
        /// The most bytes of a message.
        limit: u64,
    },
    /// Messages of either kind and any size, piece by piece.
    Pieces,
}

/// The rules, judged by the header alone: a frame that breaks one is not waited for.
pub(super) fn check(
    header: &FrameHeader,
    len: u64,
    role: Role,
    within: Option<Kind>,
    rules: Rules,
) -> Result<(), String> {
    // 5.2: "MUST be 0 unless an extension is negotiated".
    if header.rsv1 || header.rsv2 || header.rsv3 {
        return Err("a frame with reserved bits".to_owned());
    }
    // 5.1: "a client MUST mask all frames", "a server MUST NOT mask any frames".
    match (role, header.mask) {
        (Role::Client, None) | (Role::Server, Some(_)) => {}
        (Role::Client, Some(_)) => return Err("a masked frame from a server".to_owned()),
        (Role::Server, None) => return Err("an unmasked frame from a client".to_owned()),
    }
    // 5.2: "the most significant bit MUST be 0".
    if len > i64::MAX as u64 {
        return Err(format!("a frame of {len} bytes"));
    }
    match (header.opcode, rules) {
        // 5.5: "MUST have a payload length of 125 bytes or less and MUST NOT be fragmented".
        (OpCode::Control(_), _) if !header.is_final => Err("a control frame in pieces".to_owned()),
        (OpCode::Control(_), _) if len > MAX_CONTROL as u64 => {
            Err(format!("a control frame of {len} bytes, at most {MAX_CONTROL} are allowed"))
        }
        // 5.5.1: "If there is a body, the first two bytes of the body MUST be a 2-byte unsigned integer".
        (OpCode::Control(Control::Close), _) if len == 1 => Err("a close frame with half a code".to_owned()),
        (OpCode::Control(_), _) => Ok(()),
        // 5.4: "The fragments of one message MUST NOT be interleaved between the fragments of another message".
        (OpCode::Data(Data::Text | Data::Binary), _) if within.is_some() => {
            Err("a message within a message in pieces".to_owned())
        }
        (OpCode::Data(Data::Continue), _) if within.is_none() => {
            Err("the continuation of no message".to_owned())
        }
        (OpCode::Data(_), Rules::Messages { joined, limit }) => match joined.saturating_add(len) {
            size if size > limit => Err(format!("a message of {size} bytes, at most {limit} are allowed")),
            _ => Ok(()),
        },
        (OpCode::Data(_), Rules::Pieces) => Ok(()),
    }
}

/// Masks, or unmasks.
pub(super) fn apply_mask(payload: &mut [u8], key: [u8; 4]) {
    // As wide as vector registers get: it is the compiler that makes vectors of it, of those that this machine has.
    let wide: [u8; 64] = std::array::from_fn(|i| key[i % 4]);
    pulp::Arch::new().dispatch(|| {
        let (words, rest) = payload.as_chunks_mut::<64>();
        for word in words {
            word.iter_mut().zip(wide).for_each(|(byte, key)| *byte ^= key);
        }
        for (byte, key) in rest.iter_mut().zip(key.into_iter().cycle()) {
            *byte ^= key;
        }
    });
}

/// Masks the next part of a payload, and turns the key to where the part behind it begins.
pub(super) fn mask_next(part: &mut [u8], key: &mut [u8; 4]) {
    apply_mask(part, *key);
    key.rotate_left(part.len() % 4);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_mask_applied_twice_is_gone(bytes in prop::collection::vec(any::<u8>(), 0..300), key: [u8; 4]) {
            let mut masked = bytes.clone();
            apply_mask(&mut masked, key);
            let plain: Vec<u8> = bytes.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
            prop_assert_eq!(&masked, &plain);
            apply_mask(&mut masked, key);
            prop_assert_eq!(masked, bytes);
        }

        #[test]
        fn a_mask_applied_part_by_part_is_the_same(
            bytes in prop::collection::vec(any::<u8>(), 0..300), key: [u8; 4], part in 1usize..80,
        ) {
            let (mut whole, mut parts) = (bytes.clone(), bytes);
            apply_mask(&mut whole, key);
            let mut turned = key;
            parts.chunks_mut(part).for_each(|part| mask_next(part, &mut turned));
            prop_assert_eq!(parts, whole);
        }
    }
}
