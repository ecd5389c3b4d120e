//! What a benchmark makes of its figures: medians, ratios, one table, one file of JSON.
//!
//! What is measured and how is in `limits/`; this library knows no Quiesce, so that its arithmetic can be tested.

pub mod report;
pub mod statistics;
