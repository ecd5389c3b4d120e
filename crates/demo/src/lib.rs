//! The demonstration: a small stateful application, an S3 server on loopback, a migration under load
