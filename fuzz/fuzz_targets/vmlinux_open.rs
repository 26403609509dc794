//! Whatever a file holds, reading it as a vmlinux yields an image or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use schedswap_kernel::vmlinux;
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    let Ok(image) = vmlinux::parse(Path::new("vmlinux"), bytes.to_vec()) else { return };
    // What later phases ask of any image.
    for id in &image.functions_by_addr {
        let addr = image.symbol(*id).addr;
        let _ = image.function_at(addr);
        let _ = image.functions_entered_at(addr);
        let _ = schedswap_kernel::arch::instructions(&image, *id);
    }
});
