#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| corecast_fuzz::user::check(data));
