//! libFuzzer calls [`quiesce_agent::fuzzing::notify`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _taken = quiesce_agent::fuzzing::notify(bytes);
});
