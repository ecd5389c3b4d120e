//! Log lines about shutdowns and starts: whose they are, in the same fields as the scheduler's, so that the lines of both
//! put together tell the story of an operation. The fields are described in `docs/operations.md`.

/// A line about a shutdown: `of_shutdown!(info, identity, shutdown, more = fields, "message")`.
macro_rules! of_shutdown {
    ($level:ident, $identity:expr, $shutdown:expr, $($rest:tt)+) => {
        tracing::$level!(
            operation.id = $crate::hook::chronicle::operation_id(&$shutdown.order.operation),
            application = $identity.application(),
            instance = $identity.instance(),
            attempt = $shutdown.order.attempt,
            epoch = $shutdown.order.epoch,
            shutdown.id = $shutdown.id(),
            $($rest)+
        )
    };
}

/// A line about a start; at the start of an agent there is no operation.
macro_rules! of_start {
    ($level:ident, $identity:expr, $start:expr, $($rest:tt)+) => {
        tracing::$level!(
            operation.id = $crate::hook::chronicle::operation_id(&$start.command.operation),
            application = $identity.application(),
            instance = $identity.instance(),
            epoch = $start.epoch,
            $($rest)+
        )
    };
}

pub(super) use {of_shutdown, of_start};

/// The id in the name of an operation; what has another form is shown as it is.
pub(crate) fn operation_id(name: &str) -> Option<&str> {
    Some(name.strip_prefix("operations/").unwrap_or(name)).filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_shown_by_its_id() {
        assert_eq!(operation_id("operations/op-1"), Some("op-1"));
        assert_eq!(operation_id("op-1"), Some("op-1"));
        assert_eq!(operation_id(""), None);
    }
}
