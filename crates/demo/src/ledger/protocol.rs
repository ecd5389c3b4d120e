//! The ledger's line protocol, both directions. One request a line, one answer a line, in order, UTF-8.
//!
//! | request | answer |
//! |---|---|
//! | `PUT key value` | `OK number epoch=E writer=W` |
//! | `GET key` | `VALUE number value` or `NONE` |
//! | `COUNT` | `COUNT n` |
//! | `WHO` | `WHO epoch=E writer=W pid=P serving` or `... stopping` |
//! | anything else | `ERR reason` |

use std::fmt;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

use super::book::{Entry, Epoch, KEY_BYTES_MAX, VALUE_BYTES_MAX};

/// Longest line without its end: `PUT`, key, value, two spaces; answers are shorter but for an error's few words.
const LINE_BYTES_MAX: usize = 3 + KEY_BYTES_MAX + VALUE_BYTES_MAX + 2 + 128;

/// One life of a ledger process, by a random name: two processes are never the same writer.
pub type Writer = String;

/// A request as it stands in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Write an entry.
    Put {
        /// Its key.
        key: &'a str,
        /// Its value, spaces and all.
        value: &'a str,
    },
    /// Read an entry.
    Get {
        /// Its key.
        key: &'a str,
    },
    /// How many entries there are.
    Count,
    /// Who answers here.
    Who,
}

impl<'a> Request<'a> {
    /// The request in this line, or what is wrong with it. Keys and values are judged by the book.
    pub fn parse(line: &'a str) -> Result<Self, &'static str> {
        match line.split_once(' ') {
            None if line == "COUNT" => Ok(Self::Count),
            None if line == "WHO" => Ok(Self::Who),
            Some(("GET", key)) => Ok(Self::Get { key }),
            Some(("PUT", rest)) => match rest.split_once(' ') {
                Some((key, value)) => Ok(Self::Put { key, value }),
                None => Err("PUT takes a key and a value"),
            },
            _ => Err("the requests are: PUT key value, GET key, COUNT, WHO"),
        }
    }
}

impl fmt::Display for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { key, value } => write!(f, "PUT {key} {value}"),
            Self::Get { key } => write!(f, "GET {key}"),
            Self::Count => f.write_str("COUNT"),
            Self::Who => f.write_str("WHO"),
        }
    }
}

/// An answer; `Display` is the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The write is in the book and will survive a graceful stop: it is acknowledged.
    Written {
        /// The number of the entry.
        number: u64,
        /// The permission under which it was written.
        epoch: Epoch,
        /// The process that wrote it.
        writer: Writer,
    },
    /// The entry asked for.
    Value(Entry),
    /// There is no such entry.
    None,
    /// How many entries there are.
    Count(u64),
    /// Who answers.
    Who {
        /// The permission it runs under.
        epoch: Epoch,
        /// Its name.
        writer: Writer,
        /// Its process id.
        pid: u32,
        /// Whether it is on its way down.
        stopping: bool,
    },
    /// Nothing was done, and why.
    Error(String),
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Written { number, epoch, writer } => write!(f, "OK {number} epoch={epoch} writer={writer}"),
            Self::Value(entry) => write!(f, "VALUE {} {}", entry.number, entry.value),
            Self::None => f.write_str("NONE"),
            Self::Count(count) => write!(f, "COUNT {count}"),
            Self::Who { epoch, writer, pid, stopping } => {
                let state = if *stopping { "stopping" } else { "serving" };
                write!(f, "WHO epoch={epoch} writer={writer} pid={pid} {state}")
            }
            Self::Error(reason) => write!(f, "ERR {reason}"),
        }
    }
}

impl Answer {
    /// The answer in this line, or `None` if it is not one.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "OK" => {
                let (number, rest) = rest.split_once(" epoch=")?;
                let (epoch, writer) = rest.split_once(" writer=")?;
                let (number, epoch) = (number.parse().ok()?, epoch.parse().ok()?);
                Some(Self::Written { number, epoch, writer: writer.to_owned() })
            }
            "VALUE" => {
                let (number, value) = rest.split_once(' ')?;
                Some(Self::Value(Entry { number: number.parse().ok()?, value: value.to_owned() }))
            }
            "NONE" => Some(Self::None),
            "COUNT" => Some(Self::Count(rest.parse().ok()?)),
            "WHO" => {
                let (epoch, rest) = rest.strip_prefix("epoch=")?.split_once(" writer=")?;
                let (writer, rest) = rest.split_once(" pid=")?;
                let (pid, state) = rest.split_once(' ')?;
                let stopping = match state {
                    "serving" => false,
                    "stopping" => true,
                    _ => return None,
                };
                let (epoch, pid) = (epoch.parse().ok()?, pid.parse().ok()?);
                Some(Self::Who { epoch, writer: writer.to_owned(), pid, stopping })
            }
            "ERR" => Some(Self::Error(rest.to_owned())),
            _ => None,
        }
    }
}

/// A line that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// No end of line within the limit; what follows cannot be told apart from it.
    #[error("a line has at most {LINE_BYTES_MAX} bytes")]
    TooLong,
    /// Not UTF-8.
    #[error("a line is UTF-8 text")]
    NotText,
    /// The connection broke.
    #[error("the connection broke")]
    Read(#[from] std::io::Error),
}

/// The next line without its end, or `None` at the end of the stream; half a line at the end counts as nothing.
pub async fn read_line<R: AsyncBufRead + Unpin>(reader: &mut R) -> Result<Option<String>, LineError> {
    let mut line = Vec::new();
    reader.take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line).await?;
    if line.pop_if(|last| *last == b'\n').is_none() {
        return if line.len() > LINE_BYTES_MAX { Err(LineError::TooLong) } else { Ok(None) };
    }
    // People type into this with tools that send CR LF.
    line.pop_if(|last| *last == b'\r');
    String::from_utf8(line).map(Some).map_err(|_| LineError::NotText)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_comes_back_as_it_was_sent() {
        let answers = [
            Answer::Written { number: 7, epoch: Epoch::new(3), writer: "ab12".to_owned() },
            Answer::Value(Entry { number: 1, value: "two words".to_owned() }),
            Answer::None,
            Answer::Count(12),
            Answer::Who { epoch: Epoch::new(3), writer: "ab12".to_owned(), pid: 17, stopping: true },
            Answer::Error("stopping".to_owned()),
        ];
        for answer in answers {
            assert_eq!(Answer::parse(&answer.to_string()), Some(answer));
        }
        for line in ["", "OK", "OK x epoch=1 writer=a", "VALUE 1", "WHO epoch=1 writer=a pid=1 dancing", "ok 1"] {
            assert_eq!(Answer::parse(line), None, "{line:?}");
        }
    }

    #[test]
    fn requests_are_recognised_and_nothing_else_is() {
        let put = Request::Put { key: "k", value: "a  b" };
        assert_eq!(Request::parse("PUT k a  b"), Ok(put));
        assert_eq!(put.to_string(), "PUT k a  b");
        assert_eq!(Request::parse("GET k"), Ok(Request::Get { key: "k" }));
        assert_eq!(Request::parse("COUNT"), Ok(Request::Count));
        assert_eq!(Request::parse("WHO"), Ok(Request::Who));
        for line in ["", "PUT", "PUT k", "GET", "COUNT 1", "put k v", "DELETE k", " WHO"] {
            assert!(Request::parse(line).is_err(), "{line:?}");
        }
    }

    #[tokio::test]
    async fn lines_are_bounded_and_half_a_line_is_nothing() {
        let long = "x".repeat(LINE_BYTES_MAX);
        let mut good = std::io::Cursor::new(format!("{long}\nWHO\r\nhalf"));
        assert_eq!(read_line(&mut good).await.unwrap().as_deref(), Some(long.as_str()));
        assert_eq!(read_line(&mut good).await.unwrap().as_deref(), Some("WHO"));
        assert_eq!(read_line(&mut good).await.unwrap(), None);
        let mut bad = std::io::Cursor::new(format!("{long}x\n"));
        assert!(matches!(read_line(&mut bad).await, Err(LineError::TooLong)));
        assert!(matches!(read_line(&mut std::io::Cursor::new(b"\xff\n")).await, Err(LineError::NotText)));
    }
}
