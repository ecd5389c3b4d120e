//! A secret in all the forms in which it could show, and the search for many of them at once.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Bytes by which a place is looked up that could be the beginning of a secret.
const HEAD: usize = 8;

/// Where the number of a P-256 key stands in PKCS #8, as both rcgen and openssl write it, and how long it is.
const P256_NUMBER: std::ops::Range<usize> = 36..68;
const P256_BYTES: usize = 138;

/// Something that may be known to whoever it is for, and to nobody else.
#[derive(Debug, Clone)]
pub(crate) struct Secret {
    /// What it is, for people.
    pub(crate) name: String,
    forms: Vec<(&'static str, Vec<u8>)>,
}

impl Secret {
    /// `kind.id.secret`, as all tokens are.
    pub(crate) fn token(name: impl Into<String>, token: &str) -> Self {
        let mut forms = vec![("as it is", token.as_bytes().to_vec())];
        forms.push(("as hex", hex(token.as_bytes()).into_bytes()));
        forms.push(("as base64", trimmed_base64(token.as_bytes())));
        let last = token.rsplit('.').next().unwrap_or(token);
        forms.push(("without what is known of it", last.as_bytes().to_vec()));
        let secret = Self { name: name.into(), forms };
        match URL_SAFE_NO_PAD.decode(last) {
            Ok(bytes) => secret.and(&bytes),
            Err(error) => panic!("{} is no token of ours: {error}", secret.name),
        }
    }

    /// A key that is nothing but bytes.
    pub(crate) fn key(name: impl Into<String>, bytes: &[u8]) -> Self {
        Self { name: name.into(), forms: Vec::new() }.and(bytes)
    }

    /// A private key in PEM.
    pub(crate) fn pem(name: impl Into<String>, pem: &str) -> Self {
        let lines: Vec<_> = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let mut forms: Vec<_> = lines
            .iter()
            .filter(|line| line.len() > 2 * HEAD)
            .map(|line| ("a line of it", line.as_bytes().to_vec()))
            .collect();
        let body = lines.concat();
        let bytes = STANDARD.decode(&body).expect("a PEM file");
        forms.push(("its lines in one", body.into_bytes()));
        let secret = Self { name: name.into(), forms }.and(&bytes);
        if bytes.len() == P256_BYTES { secret.and(&bytes[P256_NUMBER]) } else { secret }
    }

    fn and(mut self, bytes: &[u8]) -> Self {
        self.forms.push(("its bytes", bytes.to_vec()));
        self.forms.push(("its bytes as hex", hex(bytes).into_bytes()));
        self.forms.push(("its bytes as base64", trimmed_base64(bytes)));
        self.forms.push(("its bytes as base64url", URL_SAFE_NO_PAD.encode(bytes).into_bytes()));
        let list = format!("{bytes:?}");
        self.forms.push(("its bytes as Debug shows them", list.trim_matches(['[', ']']).as_bytes().to_vec()));
        self
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Without the end that depends on what follows.
fn trimmed_base64(bytes: &[u8]) -> Vec<u8> {
    STANDARD_NO_PAD.encode(&bytes[..bytes.len() / 3 * 3]).into_bytes()
}

/// One secret in one place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Find {
    pub(crate) secret: String,
    pub(crate) form: &'static str,
    pub(crate) at: usize,
}

/// A secret, the name of a form, and the form.
type Form<'s> = (&'s Secret, &'static str, &'s [u8]);

/// All forms of all secrets, by their first bytes.
pub(crate) struct Search<'s> {
    forms: HashMap<[u8; HEAD], Vec<Form<'s>>>,
    /// Whether a form begins with these two bytes: most places of a text are done with that.
    begins: Vec<bool>,
}

impl<'s> Search<'s> {
    pub(crate) fn new(secrets: &'s [Secret]) -> Self {
        let mut search = Self { forms: HashMap::new(), begins: vec![false; 1 << 16] };
        for secret in secrets {
            for (form, bytes) in &secret.forms {
                let head = bytes.first_chunk().unwrap_or_else(|| panic!("{}, {form}, is too short", secret.name));
                search.forms.entry(*head).or_default().push((secret, form, bytes));
                search.begins[usize::from(u16::from_be_bytes([head[0], head[1]]))] = true;
            }
        }
        search
    }

    /// Each secret in each form once, at its first place.
    pub(crate) fn finds(&self, text: &[u8]) -> Vec<Find> {
        let mut finds: Vec<Find> = Vec::new();
        for (at, head) in text.windows(HEAD).enumerate() {
            if !self.begins[usize::from(u16::from_be_bytes([head[0], head[1]]))] {
                continue;
            }
            for (secret, form, bytes) in self.forms.get(head).into_iter().flatten() {
                let known = |find: &Find| find.secret == secret.name && find.form == *form;
                if text[at..].starts_with(bytes) && !finds.iter().any(known) {
                    finds.push(Find { secret: secret.name.clone(), form, at });
                }
            }
        }
        finds
    }
}

#[test]
fn a_secret_is_found_in_every_form_and_nothing_else_is() {
    let key: [u8; P256_BYTES] = std::array::from_fn(|at| u8::try_from(at).unwrap().wrapping_mul(37));
    let key = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(key));
    let secrets = [
        Secret::token(
            "the token",
            &format!("qbt1.t01.{}", URL_SAFE_NO_PAD.encode(*b"thirty-two bytes of a secret ...")),
        ),
        Secret::key("the key", &std::array::from_fn::<u8, 32, _>(|at| u8::try_from(at).unwrap() ^ 0xa5)),
        Secret::pem("the private key", &key),
    ];
    let search = Search::new(&secrets);
    for secret in &secrets {
        for (form, bytes) in &secret.forms {
            let text = [b"qbt1.t01.", &bytes[..], b" and more"].concat();
            let finds = search.finds(&text);
            assert!(finds.iter().any(|find| find.secret == secret.name && find.form == *form), "{form}: {finds:?}");
            assert!(finds.iter().all(|find| find.secret == secret.name), "{finds:?}");
        }
    }
    assert!(search.finds(b"qbt1.t01.somebody-elses-secret-altogether, 162, 163").is_empty());
}
