//! What tests share: scripted hooks, bounded waits, proxies; only ever a dev-dependency
