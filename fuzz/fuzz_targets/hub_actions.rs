//! One byte per step: which connection connects, subscribes, publishes or reads, and which letter arrives next. The simulation
//! of the tests checks the hub's invariants after every step.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    corecast::hub::simulation::run(data.iter().copied());
});
