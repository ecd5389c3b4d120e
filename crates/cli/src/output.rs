//! Printing: text that fits the terminal, tables, pages, JSON and YAML.
//!
//! Owns how things look; what is looked up and why is the business of [`crate::commands`].

pub(crate) mod describe;
pub(crate) mod json;
pub(crate) mod table;
pub(crate) mod text;
pub(crate) mod words;
