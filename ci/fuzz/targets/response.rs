//! libFuzzer's entry to [`ceto_fuzz::response::run`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ceto_fuzz::response::run(input));
