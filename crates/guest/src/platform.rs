//! The machine that QEMU emulates: the one for which the kernel's image was built.

use schedswap_kernel::vmlinux::Machine;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The differences between the machines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Platform {
    /// The emulator.
    pub qemu: &'static str,
    /// Its options for the board.
    pub board: &'static [&'static str],
    /// The CPU model with all features that the emulator can emulate.
    pub cpu_model: &'static str,
    /// The first serial port, as the kernel's parameter names it.
    pub console: &'static str,
    /// The other serial port, connected to the chardev `agent`. `init.sh` knows its name in the guest.
    pub agent: &'static [&'static str],
}

const PC: Platform = Platform {
    qemu: "qemu-system-x86_64",
    board: &["-M", "q35"],
    cpu_model: "max",
    console: "ttyS0,115200",
    agent: &["-serial", "chardev:agent"],
};

/// Until QEMU 9.1 the board has only one serial port. Pointers are authenticated, but not with the algorithm that the
/// architecture recommends: without hardware support, that takes most of a guest's time.
const ARM64: Platform = Platform {
    qemu: "qemu-system-aarch64",
    board: &["-M", "virt,gic-version=3"],
    cpu_model: "max,pauth-impdef=on",
    console: "ttyAMA0,115200",
    agent: &["-device", "pci-serial,chardev=agent"],
};

/// How much of an image holds its PE header: Linux images are also UEFI programs.
const HEADER_BYTES: usize = 4096;
/// `IMAGE_FILE_MACHINE_ARM64`.
const PE_ARM64: [u8; 2] = 0xaa64u16.to_le_bytes();

impl Platform {
    pub fn of(machine: Machine) -> Platform {
        match machine {
            Machine::X86_64 => PC,
            Machine::Aarch64 => ARM64,
        }
    }

    /// The machine for `image`; a PC if the image does not say.
    pub fn of_image(image: &Path) -> Platform {
        Platform::of(machine(image).unwrap_or(Machine::X86_64))
    }
}

/// The machine for which a kernel's image was built, if the image says so.
pub fn machine(image: &Path) -> Option<Machine> {
    let mut header = Vec::new();
    File::open(image).ok()?.take(HEADER_BYTES as u64).read_to_end(&mut header).ok()?;
    machine_of(&header)
}

fn machine_of(header: &[u8]) -> Option<Machine> {
    let at = u32::from_le_bytes(header.get(0x3c..0x40)?.try_into().ok()?) as usize;
    let pe = header.get(at..at.checked_add(6)?)?;
    let machine = pe.strip_prefix(b"PE\0\0")?;
    Some(if machine == PE_ARM64 { Machine::Aarch64 } else { Machine::X86_64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_says_what_it_is_for() {
        let image = |machine: u16| {
            let mut header = vec![0; 0x80];
            header[0x3c] = 0x40;
            header[0x40..0x44].copy_from_slice(b"PE\0\0");
            header[0x44..0x46].copy_from_slice(&machine.to_le_bytes());
            header
        };
        assert_eq!(machine_of(&image(0xaa64)), Some(Machine::Aarch64));
        assert_eq!(machine_of(&image(0x8664)), Some(Machine::X86_64));
        assert_eq!(machine_of(b"\x1f\x8b no image at all"), None);
        assert_eq!(machine_of(&[0xff; 0x80]), None);
    }
}
