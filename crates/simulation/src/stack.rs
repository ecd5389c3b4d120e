//! The whole stack in virtual time: real servers, streams and reconnects on hosts that crash, over links that break.
