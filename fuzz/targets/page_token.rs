//! libFuzzer calls [`quiesce_scheduler::fuzzing::page_token`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _taken = quiesce_scheduler::fuzzing::page_token(bytes);
});
