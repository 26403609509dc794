//! Whatever a file holds, reading it as a relocatable object yields one or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use schedswap_kernel::objects;

fuzz_target!(|bytes: &[u8]| {
    let _ = objects::read("fuzzed.o", bytes);
});
