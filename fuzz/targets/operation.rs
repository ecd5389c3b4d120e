//! libFuzzer calls [`quiesce_scheduler::fuzzing::operation`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _taken = quiesce_scheduler::fuzzing::operation(bytes);
});
