//! Names of things: validated once, compared byte for byte, ordered as text.
//!
//! The alphabets are those of the contract (`proto/quiesce/v1/types.proto`, "Names"). A value of one of these types is
//! always well formed; parsing says what is wrong with text that is not.

use std::fmt;

use minicbor::{Decode, Encode};
use thiserror::Error;
use uuid::Uuid;

/// Longest application or instance identifier, in characters: a DNS label, so that pod names fit.
pub const LABEL_MAX: usize = 63;
/// Longest cluster identifier, in characters: a DNS name.
pub const CLUSTER_MAX: usize = 253;
/// Longest operation identifier, in characters.
pub const OPERATION_MAX: usize = 40;

/// Text that is not a name of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{text}` is not {what}: {rule}")]
pub struct NameError {
    /// The text as given, cut to a bounded length, its control characters escaped: errors get into terminals and logs.
    pub text: String,
    /// What it should have been.
    pub what: &'static str,
    /// The rule it breaks.
    pub rule: &'static str,
}

fn refuse(text: &str, what: &'static str, rule: &'static str) -> NameError {
    NameError { text: text.chars().take(LABEL_MAX).flat_map(char::escape_debug).collect(), what, rule }
}

fn is_lower_alnum(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $parse:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode)]
        #[cbor(transparent)]
        pub struct $type(#[n(0)] String);

        impl $type {
            /// The name, if `text` is one.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                let check: fn(&str) -> Result<(), NameError> = $parse;
                check(text)?;
                Ok(Self(text.to_owned()))
            }

            /// The identifier as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        // Stored text is checked like any other input.
        impl<'b, C> Decode<'b, C> for $type {
            fn decode(decoder: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                Self::parse(decoder.str()?).map_err(minicbor::decode::Error::message)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// An application: `{application}` of `applications/{application}`.
    ApplicationId,
    |text| {
        let bytes = text.as_bytes();
        let fits = bytes.len() <= LABEL_MAX
            && bytes.first().is_some_and(u8::is_ascii_lowercase)
            && bytes.last().copied().is_some_and(is_lower_alnum)
            && bytes.iter().all(|&b| is_lower_alnum(b) || b == b'-');
        if fits {
            return Ok(());
        }
        Err(refuse(
            text,
            "an application name",
            "1 to 63 characters a-z, 0-9 and -, beginning with a letter, not ending with -",
        ))
    }
);

name!(
    /// One replica of an application: `{instance}` of `applications/{application}/instances/{instance}`.
    InstanceId,
    |text| {
        let bytes = text.as_bytes();
        let fits = bytes.len() <= LABEL_MAX
            && bytes.first().copied().is_some_and(is_lower_alnum)
            && bytes.last().copied().is_some_and(is_lower_alnum)
            && bytes.iter().all(|&b| is_lower_alnum(b) || b == b'-' || b == b'.');
        if fits {
            return Ok(());
        }
        Err(refuse(
            text,
            "an instance name",
            "1 to 63 characters a-z, 0-9, - and ., beginning and ending with a letter or digit",
        ))
    }
);

name!(
    /// A place where instances run; an identifier of another system, opaque here.
    ClusterId,
    |text| {
        let bytes = text.as_bytes();
        let fits = bytes.len() <= CLUSTER_MAX
            && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.iter().all(|&b| b.is_ascii_alphanumeric() || b"._:@-".contains(&b));
        if fits {
            return Ok(());
        }
        Err(refuse(
            text,
            "a cluster name",
            "1 to 253 characters A-Z, a-z, 0-9 and ._:@-, beginning and ending with a letter or digit",
        ))
    }
);

name!(
    /// One migration or deletion. Identifiers of later operations sort behind those of earlier ones.
    OperationId,
    |text| {
        let bytes = text.as_bytes();
        let fits = bytes.len() <= OPERATION_MAX
            && bytes.first().is_some_and(u8::is_ascii_lowercase)
            && bytes.last().copied().is_some_and(is_lower_alnum)
            && bytes.iter().all(|&b| is_lower_alnum(b) || b == b'-');
        if fits {
            return Ok(());
        }
        Err(refuse(
            text,
            "an operation name",
            "1 to 40 characters a-z, 0-9 and -, beginning with a letter, not ending with -",
        ))
    }
);

impl OperationId {
    /// The identifier made from a version 7 UUID: `op-` and 16 characters of Crockford's base 32, which hold the
    /// millisecond (48 bits) and 32 random bits. Whoever stores it must refuse one that is taken.
    #[must_use]
    pub fn from_uuid(uuid: Uuid) -> Self {
        const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
        let bits = uuid.as_u128();
        let mut rest = (bits >> 80) << 32 | (bits & 0xffff_ffff);
        let mut text = [0_u8; 16];
        for slot in text.iter_mut().rev() {
            *slot = ALPHABET[(rest & 31) as usize];
            rest >>= 5;
        }
        Self(format!("op-{}", String::from_utf8_lossy(&text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_contract() {
        for good in ["a", "db", "shop-2", &"a".repeat(63)] {
            assert!(ApplicationId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "2db", "Db", "db-", "d b", "d/b", "dä", &"a".repeat(64)] {
            assert!(ApplicationId::parse(bad).is_err(), "{bad}");
        }
        assert!(InstanceId::parse("0.db-0").is_ok());
        assert!(InstanceId::parse(".db").is_err());
        assert!(ClusterId::parse("arn:aws:eks@Edge_1").is_ok());
        assert!(ClusterId::parse("a/b").is_err());
        assert!(ClusterId::parse("a b").is_err());
        let shown = ApplicationId::parse(&format!("\x1b[2J{}", "x".repeat(1000))).unwrap_err().text;
        assert!(shown.starts_with("\\u{1b}[2Jx") && shown.len() < 100, "{shown}");
    }

    #[test]
    fn operation_ids_are_names_and_sort_by_time() {
        let early = OperationId::from_uuid(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_ffff_ffff));
        let late = OperationId::from_uuid(Uuid::from_u128(0x0190_0000_0001_7000_8000_0000_0000_0000));
        assert!(early < late);
        assert_eq!(OperationId::parse(early.as_str()).as_ref(), Ok(&early));
    }
}
