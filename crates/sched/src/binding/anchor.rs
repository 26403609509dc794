//! The symbol from which vmlinux's addresses are counted.

use super::Error;
use schedswap_kernel::vmlinux::Image;

/// The first of these that the kernel exports. Every kernel has one, for every module; before 5.15 under its
/// old name.
const ANCHORS: &[&str] = &["_printk", "printk"];

/// The anchor of a kernel.
///
/// # Errors
/// When it exports none.
pub fn anchor(image: &Image) -> Result<&'static str, Error> {
    let exported = ANCHORS.iter().copied().find(|name| image.exports.contains_key(*name));
    exported.ok_or_else(|| Error::NoAnchor(ANCHORS.join(" or ")))
}
