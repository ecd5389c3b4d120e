//! The agent beside an application: stops it, proves that it stopped, keeps it stopped
