//! One byte a step: who connects, subscribes, publishes, reads, and which letter arrives next. Every promise of the hub is
//! checked at every step by the simulation of the tests.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    corecast::hub::simulation::run(data.iter().copied());
});
