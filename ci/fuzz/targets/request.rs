//! libFuzzer's entry to [`ceto_fuzz::request::run`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ceto_fuzz::request::run(input));
