//! UEFI firmware, for a guest whose kernel needs information that only firmware provides.

use super::config::option_value;
use std::ffi::OsString;
use std::path::PathBuf;

/// A build of OVMF: two flash chips.
#[derive(Clone, Debug)]
pub struct Firmware {
    /// The program; guests only read it.
    pub code: PathBuf,
    /// Its variables. A guest writes to them, so each guest needs its own file.
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
