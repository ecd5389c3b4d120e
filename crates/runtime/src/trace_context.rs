//! Where a call stands in a distributed trace: the two headers of W3C Trace Context.
//!
//! <https://www.w3.org/TR/trace-context/>. What a caller sends is a hint and never an error: a header that cannot be read
//! counts as one that is not there.

use std::fmt;

/// Header with trace, parent and flags.
pub const TRACEPARENT: &str = "traceparent";

/// Header with what tracing systems have to remember of their own.
pub const TRACESTATE: &str = "tracestate";

/// Longest list of the tracing systems that is handed on; section 3.3.1.5 asks for at least that much. A longer one is
/// dropped as a whole, as that section allows.
const STATE_BYTES_MAX: usize = 512;

/// Flag: the caller records this trace.
const SAMPLED: u8 = 1;

/// A place in a trace: what comes next is a child of `span_id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace; never all zero.
    pub trace_id: u128,
    /// The span that calls; never zero.
    pub span_id: u64,
    /// The caller records it.
    pub sampled: bool,
    /// Of the tracing systems, handed on as it came.
    pub state: String,
}

impl TraceContext {
    /// What the headers say, looked up by `header`; `None` when there is no good `traceparent`.
    pub fn read<'a>(header: impl Fn(&'static str) -> Option<&'a str>) -> Option<Self> {
        let mut context = Self::parse(header(TRACEPARENT)?)?;
        let plain =
            |state: &&str| state.len() <= STATE_BYTES_MAX && state.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        context.state = header(TRACESTATE).map(str::trim).filter(plain).unwrap_or_default().to_owned();
        Some(context)
    }

    /// A `traceparent`: `00-TRACE-SPAN-FLAGS`, in lower case; later versions may have more behind it.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let version = hex(version, 2)?;
        if version == 0xff || (version == 0 && parts.next().is_some()) {
            return None;
        }
        let (trace_id, span_id) = (hex(trace, 32)?, u64::try_from(hex(span, 16)?).ok()?);
        let sampled = hex(flags, 2)? & u128::from(SAMPLED) != 0;
        (trace_id != 0 && span_id != 0).then(|| Self { trace_id, span_id, sampled, state: String::new() })
    }

    /// The place of what `span_id` calls.
    #[must_use]
    pub fn child(&self, span_id: u64) -> Self {
        Self { span_id, ..self.clone() }
    }

    /// The same for a program: in its environment, by the names in capitals.
    /// <https://opentelemetry.io/docs/specs/otel/context/env-carriers/>
    pub fn variables(&self) -> impl Iterator<Item = (String, String)> + use<> {
        self.headers().map(|(name, value)| (name.to_ascii_uppercase(), value))
    }

    /// The headers, by name.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, String)> + use<> {
        let state = Some(self.state.clone()).filter(|state| !state.is_empty());
        [(TRACEPARENT, Some(self.to_string())), (TRACESTATE, state)]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
    }
}

/// As a `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled) * SAMPLED)
    }
}

/// So many digits, in lower case.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let good = text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    good.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn read(parent: &'static str, state: Option<&'static str>) -> Option<TraceContext> {
        TraceContext::read(|name| if name == TRACEPARENT { Some(parent) } else { state })
    }

    #[test]
    fn what_is_read_is_handed_on() {
        let context = read(PARENT, Some("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE")).unwrap();
        assert_eq!(
            (context.trace_id, context.span_id),
            (0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, 0x00f0_67aa_0ba9_02b7)
        );
        assert!(context.sampled);
        let headers: Vec<_> = context.headers().collect();
        assert_eq!(
            headers,
            [(TRACEPARENT, PARENT.to_owned()), (TRACESTATE, "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE".to_owned())]
        );
        let child = context.child(7).to_string();
        assert_eq!(child, "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000007-01");
    }

    #[test]
    fn one_that_is_not_recorded_stays_so() {
        let context = read("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", None).unwrap();
        assert!(!context.sampled);
        assert!(context.to_string().ends_with("-00"));
        assert_eq!(context.headers().count(), 1, "no empty state");
    }

    #[test]
    fn a_later_version_may_say_more() {
        assert!(read("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-else", None).is_some());
    }

    #[test]
    fn what_cannot_be_read_is_not_there() {
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        ] {
            assert_eq!(read(bad, None), None, "{bad:?}");
        }
    }

    #[test]
    fn a_state_that_is_too_long_or_not_text_is_dropped_alone() {
        let long: &'static str = "k=v,".repeat(200).leak();
        for state in [long, "tabs\tand\u{7f}"] {
            assert_eq!(read(PARENT, Some(state)).unwrap().state, "");
        }
    }
}
