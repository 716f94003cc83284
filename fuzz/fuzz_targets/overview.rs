#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    peregrine::fuzzing::overview(input);
});
