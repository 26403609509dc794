//! A kernel's GNU build-id.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// A GNU build-id. Written as lower-case hex.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct BuildId(Vec<u8>);

/// The kernel's own limit (`BUILD_ID_SIZE_MAX` in `include/linux/buildid.h`) is 20; newer linkers can write 32.
const MAX_BYTES: usize = 64;

/// A text that is not a build-id.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("\"{found}\" is not a build-id: expected an even number of hex digits, 2 to {} of them", MAX_BYTES * 2)]
pub struct BuildIdError {
    /// The text.
    pub found: String,
}

impl BuildId {
    /// From the note's descriptor; `None` if it is empty or longer than any build-id.
    pub fn from_bytes(bytes: &[u8]) -> Option<BuildId> {
        (!bytes.is_empty() && bytes.len() <= MAX_BYTES).then(|| BuildId(bytes.to_vec()))
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BuildId({self})")
    }
}

impl FromStr for BuildId {
    type Err = BuildIdError;

    fn from_str(text: &str) -> Result<BuildId, BuildIdError> {
        let error = || BuildIdError { found: text.chars().take(2 * MAX_BYTES + 2).collect() };
        let digits: Vec<u8> = text
            .trim()
            .chars()
            .map(|c| c.to_digit(16).map(|d| d as u8))
            .collect::<Option<_>>()
            .ok_or_else(error)?;
        if !digits.len().is_multiple_of(2) {
            return Err(error());
        }
        let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
        BuildId::from_bytes(&bytes).ok_or_else(error)
    }
}

impl Serialize for BuildId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BuildId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<BuildId, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_both_ways() {
        let id: BuildId = "00fFa1\n".parse().unwrap();
        assert_eq!(id.as_bytes(), [0x00, 0xff, 0xa1]);
        assert_eq!(id.to_string(), "00ffa1");
    }

    #[test]
    fn refuses_what_is_no_hex() {
        for text in ["", "0", "abc", "zz", "é0", &"00".repeat(MAX_BYTES + 1)] {
            assert!(text.parse::<BuildId>().is_err(), "{text:?} was taken");
        }
    }
}
