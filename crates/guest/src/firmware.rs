//! UEFI firmware, for a guest whose kernel is to find what only firmware tells it.

use super::config::option_value;
use std::ffi::OsString;
use std::path::PathBuf;

/// A build of OVMF: two flash chips.
#[derive(Clone, Debug)]
pub struct Firmware {
    /// The program, which guests only read.
    pub code: PathBuf,
    /// Its variables. Whoever runs writes to them, so each guest needs a file of its own.
    pub variables: PathBuf,
}

impl Firmware {
    /// QEMU's arguments.
    pub(super) fn qemu_arguments(&self) -> Vec<OsString> {
        let chip = |unit: u32, file, read_only: &str| {
            let file = option_value(file);
            [
                "-drive".into(),
                format!("if=pflash,unit={unit},format=raw,readonly={read_only},file={file}").into(),
            ]
        };
        [chip(0, &self.code, "on"), chip(1, &self.variables, "off")].concat()
    }
}
