//! Durable records behind a small trait: embedded engine, memory model, one conformance suite
