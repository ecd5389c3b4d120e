//! Behaviour of the machine, one file a subject.
