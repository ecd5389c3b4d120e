//! A filter written out again. Nobody is shown one, so this is for the tests alone: it tells whether a filter was
//! understood as it was meant.

use std::fmt;

use super::{Filter, Op, Test};

impl Filter {
    pub(crate) fn is_empty(&self) -> bool {
        self.restrictions.is_empty()
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (field, test)) in self.restrictions.iter().enumerate() {
            if index > 0 {
                f.write_str(" AND ")?;
            }
            match test {
                Test::Text { op, value, prefix } => write!(f, "{field} {op} {}", Quoted(value, *prefix))?,
                Test::Enum { op, value, .. } => write!(f, "{field} {op} {value}")?,
                Test::Bool { op, value } => write!(f, "{field} {op} {value}")?,
                Test::Time { op, value } => write!(f, "{field} {op} {}", prost_types::Timestamp::from(*value))?,
                Test::Label { key, op, value, prefix } => {
                    write!(f, "labels.{key} {op} {}", Quoted(value, *prefix))?;
                }
                Test::HasLabel { key } => write!(f, "labels:{}", Quoted(key, false))?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Eq => "=",
            Self::Ne => "!=",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Ge => ">=",
        })
    }
}

/// A value, and whether it means "begins with".
struct Quoted<'a>(&'a str, bool);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(value, prefix) = self;
        let star = if *prefix { "*" } else { "" };
        write!(f, "\"{}{star}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
    }
}
