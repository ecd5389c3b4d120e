//! Forms of fields: what is wrong with values that do not have them. The limits are those of `types.proto`.

use std::time::Duration;

/// A value as a table gives it; what it becomes on the wire depends on the field.
#[derive(Debug, Clone, PartialEq)]
pub enum Given {
    /// The field is not set.
    Missing,
    /// A string.
    Text(String),
    /// An integer, or the number of an enum value.
    Number(i64),
    /// A double.
    Double(f64),
    /// `google.protobuf.Duration`, also one that breaks the rules of that message.
    Duration(i64, i32),
    /// A map of strings.
    Map(Vec<(String, String)>),
    /// `google.protobuf.FieldMask`.
    Paths(Vec<String>),
}

impl From<&str> for Given {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Given {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Given {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

/// Far above every limit of a field, below that of a message.
const FAR_TOO_LONG: usize = 200_000;

type Form = Vec<(String, Given)>;

fn texts(wrong: impl IntoIterator<Item = (&'static str, String)>) -> Form {
    wrong.into_iter().map(|(what, text)| (what.to_owned(), Given::Text(text))).collect()
}

/// Names below `prefix` (`applications/`, or empty for a bare one) with identifiers of at most `max` characters.
fn name(prefix: &str, max: usize) -> Form {
    let mut wrong = texts([
        ("with a space", format!("{prefix}a b")),
        ("with a line break at its end", format!("{prefix}a\n")),
        ("with a NUL", format!("{prefix}a\0b")),
        ("with other letters", format!("{prefix}über")),
        ("ending with a dash", format!("{prefix}a-")),
        ("with a level too much", format!("{prefix}a/b/c")),
        ("one character too long", format!("{prefix}{}", "a".repeat(max + 1))),
        ("far too long", format!("{prefix}{}", "a".repeat(FAR_TOO_LONG))),
    ]);
    if !prefix.is_empty() {
        wrong.extend(texts([
            ("without an identifier", prefix.to_owned()),
            ("an identifier alone", "shop".to_owned()),
            ("with a leading slash", format!("/{prefix}a")),
            ("of another collection", format!("things/{prefix}a")),
            ("in capitals", format!("{}a", prefix.to_uppercase())),
        ]));
    }
    wrong
}

/// `applications/{application}`
pub fn application() -> Form {
    let mut wrong = name("applications/", 63);
    wrong.extend(texts([
        ("beginning with a digit", "applications/1a".to_owned()),
        ("the name of an instance", "applications/shop/instances/one".to_owned()),
        ("the name of a cluster", "clusters/a".to_owned()),
    ]));
    wrong
}

/// `applications/{application}/instances/{instance}`
pub fn instance() -> Form {
    let mut wrong = name("applications/shop/instances/", 63);
    wrong.extend(texts([
        ("the name of an application", "applications/shop".to_owned()),
        ("with a wrong application", "applications/Shop/instances/one".to_owned()),
        ("without an application", "applications//instances/one".to_owned()),
        ("beginning with a dot", "applications/shop/instances/.one".to_owned()),
    ]));
    wrong
}

/// `operations/{operation}`
pub fn operation() -> Form {
    name("operations/", 40)
}

/// `clusters/{cluster}`
pub fn cluster_name() -> Form {
    name("clusters/", 253)
}

/// A bare `{cluster}`
pub fn cluster() -> Form {
    name("", 253)
}

/// One line of text of at most `max` bytes.
pub fn line(max: usize) -> Form {
    let mut wrong = text(max);
    wrong.extend(texts([("with a line break", "a\nb".to_owned()), ("with a tab", "a\tb".to_owned())]));
    wrong
}

/// Text of at most `max` bytes, of several lines if need be.
pub fn text(max: usize) -> Form {
    texts([
        ("one byte too long", "x".repeat(max + 1)),
        ("too long in bytes, not in characters", "ä".repeat(max / 2 + 1)),
        ("far too long", "x".repeat(FAR_TOO_LONG)),
        ("with a NUL", "a\0b".to_owned()),
        ("with an escape sequence", "a\x1b[2Jb".to_owned()),
        ("with a control character above ASCII", "a\u{85}b".to_owned()),
    ])
}

/// 1 to `max` characters of letters, digits and `more`.
pub fn token(max: usize, more: &str) -> Form {
    let mut wrong = texts([
        ("one character too long", "x".repeat(max + 1)),
        ("far too long", "x".repeat(FAR_TOO_LONG)),
        ("with a space", "a b".to_owned()),
        ("with a slash", "a/b".to_owned()),
        ("with other letters", "über".to_owned()),
        ("with a line break at its end", "a\n".to_owned()),
        ("with a NUL", "a\0".to_owned()),
    ]);
    if !more.contains(':') {
        wrong.extend(texts([("with a colon", "a:b".to_owned())]));
    }
    wrong
}

/// A secret of at most `max` bytes that is compared, never shown.
pub fn secret(max: usize) -> Form {
    texts([("one byte too long", "x".repeat(max + 1)), ("far too long", "x".repeat(FAR_TOO_LONG))])
}

/// Something that only whoever made it can make.
pub fn opaque() -> Form {
    texts([
        ("garbage", "garbage".to_owned()),
        ("not of its alphabet", "!!".to_owned()),
        ("far too long", "A".repeat(FAR_TOO_LONG)),
    ])
}

/// A filter.
pub fn filter() -> Form {
    texts([
        ("not a restriction", "shop".to_owned()),
        ("a field nobody has", "colour = blue".to_owned()),
        ("a field nobody has, far too long", format!("{} = blue", "x".repeat(3000))),
        ("an alternative", "name = a OR name = b".to_owned()),
        ("a string without an end", "name = \"a".to_owned()),
        ("more restrictions than anybody needs", vec!["name = a"; 100].join(" AND ")),
        ("far too long", format!("name = {}", "a".repeat(FAR_TOO_LONG))),
    ])
}

/// `host:port`, `[v6]:port` or `unix:/path`.
pub fn endpoint() -> Form {
    texts([
        ("no port", "host".to_owned()),
        ("port 0", "host:0".to_owned()),
        ("a port too large", "host:65536".to_owned()),
        ("a URL in the clear", "http://host:80".to_owned()),
        ("a secure URL without port", "https://host".to_owned()),
        ("a secure URL with a path", "https://host:80/hook".to_owned()),
        ("a secure URL of a unix socket", "https://unix:/run/hook.sock".to_owned()),
        ("v6 without brackets", "::1:80".to_owned()),
        ("a relative path", "unix:hook.sock".to_owned()),
        ("a path with a line break", "unix:/a\nb".to_owned()),
        ("a path with a NUL", "unix:/a\0b".to_owned()),
        ("far too long", format!("{}:80", "h".repeat(FAR_TOO_LONG))),
    ])
}

/// A duration from `min` to `max`.
pub fn duration(min: Duration, max: Duration) -> Form {
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).expect("a table's limits are days at most");
    let mut wrong = vec![
        ("negative", Given::Duration(-1, 0)),
        ("just negative", Given::Duration(0, -1)),
        ("of two signs", Given::Duration(2, -1)),
        ("with more nanoseconds than a second has", Given::Duration(2, 1_000_000_000)),
        ("just too long", Given::Duration(seconds(max), 1)),
        ("as long as can be", Given::Duration(i64::MAX, 999_999_999)),
        ("as negative as can be", Given::Duration(i64::MIN, -999_999_999)),
    ];
    if !min.is_zero() {
        let less = min - Duration::from_nanos(1);
        let nanos = i32::try_from(less.subsec_nanos()).expect("below a second");
        wrong.extend([("zero", Given::Duration(0, 0)), ("just too short", Given::Duration(seconds(less), nanos))]);
    }
    wrong.into_iter().map(|(what, given)| (what.to_owned(), given)).collect()
}

/// An integer of 32 bits from `min` to `max`.
pub fn number(min: i32, max: i32) -> Form {
    let (min, max) = (i64::from(min), i64::from(max));
    outside(min, max, [i64::from(i32::MIN), min - 1, max + 1, i64::from(i32::MAX)])
        .into_iter()
        .filter(|number| i32::try_from(*number).is_ok())
        .map(|number| (number.to_string(), Given::Number(number)))
        .collect()
}

/// A count: any number of 32 bits that is not negative.
pub fn count() -> Form {
    number(0, i32::MAX)
}

/// An epoch from `min` up; 2^53 - 1 is the last.
pub fn epoch(min: i64) -> Form {
    let max = (1 << 53) - 1;
    outside(min, max, [i64::MIN, min - 1, max + 1, i64::MAX])
        .into_iter()
        .map(|number| (number.to_string(), Given::Number(number)))
        .collect()
}

fn outside(min: i64, max: i64, numbers: [i64; 4]) -> Vec<i64> {
    let mut outside: Vec<_> = numbers.into_iter().filter(|number| !(min..=max).contains(number)).collect();
    outside.dedup();
    outside
}

/// A double from `min` to `max`.
pub fn double(min: f64, max: f64) -> Form {
    [min - 0.001, max + 0.001, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0]
        .into_iter()
        .map(|number| (number.to_string(), Given::Double(number)))
        .collect()
}

/// An enum of which every value has to be known.
pub fn known_value() -> Form {
    [-1, 99, i64::from(i32::MAX), i64::from(i32::MIN)]
        .into_iter()
        .map(|number| (number.to_string(), Given::Number(number)))
        .collect()
}

/// Evidence that never counts as one.
pub fn claimed() -> Form {
    let claimed = i64::from(i32::from(quiesce_protocol::v1::Evidence::Claimed));
    vec![("a claim".to_owned(), Given::Number(claimed))]
}

/// Labels, which are lines.
pub fn labels() -> Form {
    let mut wrong = parameters();
    wrong.extend(entries([
        ("a value with a line break", "a", "b\nc".to_owned()),
        ("a value with an escape sequence", "a", "b\x1b[2J".to_owned()),
    ]));
    wrong
}

/// Parameters: values belong to the application, but are handed to it as C strings.
pub fn parameters() -> Form {
    let many = |count: usize| (0..count).map(|number| (format!("k{number}"), String::new())).collect();
    let mut wrong = vec![
        ("an entry too much".to_owned(), Given::Map(many(65))),
        ("far too many entries".to_owned(), Given::Map(many(20_000))),
        ("a key far too long".to_owned(), Given::Map(vec![("k".repeat(FAR_TOO_LONG), String::new())])),
        ("a key a byte too long".to_owned(), Given::Map(vec![("k".repeat(64), String::new())])),
    ];
    wrong.extend(entries([
        ("an empty key", "", String::new()),
        ("a key with a line break", "a\nb", String::new()),
        ("a key with a NUL", "a\0b", String::new()),
        ("a value a byte too long", "a", "x".repeat(1025)),
        ("a value far too long", "a", "x".repeat(FAR_TOO_LONG)),
        ("a value with a NUL", "a", "b\0c".to_owned()),
    ]));
    wrong
}

fn entries<const N: usize>(wrong: [(&str, &str, String); N]) -> Form {
    wrong.into_iter().map(|(what, key, value)| (what.to_owned(), Given::Map(vec![(key.to_owned(), value)]))).collect()
}

/// A field mask.
pub fn mask() -> Form {
    let paths = |paths: Vec<String>| Given::Paths(paths);
    vec![
        ("a field nobody has".to_owned(), paths(vec!["colour".to_owned()])),
        ("no path".to_owned(), paths(vec![String::new()])),
        ("the beginning of a path".to_owned(), paths(vec!["polic".to_owned(), "label".to_owned()])),
        ("a path far too long".to_owned(), paths(vec!["x".repeat(FAR_TOO_LONG)])),
        ("a path with control characters".to_owned(), paths(vec!["\0\n\x1b[2J".to_owned()])),
        ("far too many paths".to_owned(), paths(vec!["*".to_owned(); 50_000])),
    ]
}
