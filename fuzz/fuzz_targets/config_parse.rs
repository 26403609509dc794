//! Whatever a file holds, reading it as a configuration yields one or errors.
#![no_main]

use libfuzzer_sys::fuzz_target;
use schedswap_sched::config;

fuzz_target!(|text: &str| {
    let _ = config::parse("fuzzed.yaml", text);
});
