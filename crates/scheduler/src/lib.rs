//! The scheduler: requests in, operations driven to their end, progress out
