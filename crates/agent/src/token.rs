//! Secrets that others show us: completion tokens, bearer tokens, the token of an application's script.
//!
//! Owns the two rules about them: they show in no `Debug`, and they are compared in constant time. What is written to
//! disk is a [`Digest`], never the token: whoever is to be recognised brings the token itself.

use std::{fmt, io};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use quiesce_runtime::machine::Machine;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

/// Random bytes of a token that is made here: nobody guesses 256 bits.
const RANDOM_BYTES: usize = 32;

/// A secret. [`Token::expose`] is for the one place that hands it on.
#[derive(Clone)]
pub(crate) struct Token(String);

impl Token {
    /// Wraps a secret; an empty one is none.
    pub(crate) fn new(secret: String) -> Option<Self> {
        (!secret.is_empty()).then_some(Self(secret))
    }

    /// One that nobody has seen before: 43 characters, base64url.
    pub(crate) fn fresh(machine: &Machine) -> io::Result<Self> {
        let mut random = [0; RANDOM_BYTES];
        machine.entropy.fill(&mut random)?;
        Ok(Self(URL_SAFE_NO_PAD.encode(random)))
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(secret)")
    }
}

/// SHA-256 of a secret: enough to recognise it, useless for presenting it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digest([u8; 32]);

impl Digest {
    pub(crate) fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }

    /// Whether `secret` is the one; takes the same time whatever it is.
    pub(crate) fn matches(&self, secret: &str) -> bool {
        self.0.ct_eq(&Self::of(secret).0).into()
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(secret)")
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use fmt::Write as _;
        let hex = self.0.iter().fold(String::with_capacity(64), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _infallible = write!(hex, "{byte:02x}");
            hex
        });
        serializer.serialize_str(&hex)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let hex = String::deserialize(deserializer)?;
        let invalid = || de::Error::custom("a digest is 64 hexadecimal digits");
        // A sign would be read as part of a number.
        if hex.len() != 64 || !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(invalid());
        }
        let mut bytes = [0; 32];
        for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&hex[at..at + 2], 16).map_err(|_| invalid())?;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_shows_nowhere_and_its_digest_recognises_it() {
        let token = Token::new("qct1.secret".to_owned()).unwrap();
        assert_eq!(format!("{token:?} {:?}", token.digest()), "Token(secret) Digest(secret)");
        assert!(token.digest().matches("qct1.secret"));
        assert!(!token.digest().matches("qct1.secreT"));
    }

    #[test]
    fn a_fresh_token_is_long_and_never_the_same() {
        let [one, other] = [(); 2].map(|()| Token::fresh(&Machine::local()).unwrap());
        assert_eq!(one.expose().len(), 43);
        assert!(one.expose().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
        assert!(!one.digest().matches(other.expose()));
    }

    #[test]
    fn digests_survive_the_disk_and_garbage_is_refused() {
        let digest = Digest::of("x");
        let text = serde_json::to_string(&digest).unwrap();
        assert_eq!(serde_json::from_str::<Digest>(&text).unwrap(), digest);
        let signs = format!("\"{}\"", "+f".repeat(32));
        for garbage in ["\"\"", "\"zz\"", "\"é\"", "7", &signs] {
            assert!(serde_json::from_str::<Digest>(garbage).is_err(), "{garbage}");
        }
    }
}
