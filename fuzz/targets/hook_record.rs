//! libFuzzer calls [`quiesce_agent::fuzzing::hook_record`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _taken = quiesce_agent::fuzzing::hook_record(bytes);
});
