#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vestnik_fuzz::http_head(data));
