//! The initramfs of a machine that boots from a disk. It brings everything of ours and puts it into `/run`, so that
//! the disk holds only Debian and what a test puts there.

use super::modules;
use crate::{Initramfs, Result, Tools};
use schedswap_source::Bootable;

const INIT: &str = include_str!("init.sh");
const AGENT: &str = include_str!("agent.service");

/// What makes the disk reachable; built into some kernels.
const MODULES: &[&str] = &["virtio_pci", "virtio_blk", "ext4"];
/// ext4 asks the kernel for this one under another name, so no module lists it as a dependency.
const MODULES_IF_ANY: &[&str] = &["crc32c_generic"];

/// The kernel parameters of these machines, each with its reason.
pub(super) const PARAMETERS: &[(&str, &str)] = &[
    ("systemd.log_target=kmsg", "systemd's own messages on the console would cut the kernel's lines in two"),
    ("systemd.show_status=0", "the same reason"),
    ("printk.devkmsg=on", "systemd's messages in the kernel log all arrive"),
    ("systemd.gpt_auto=0", "there are no partitions to look for"),
    ("fsck.mode=skip", "the journal is replayed by the mount; tests check the disk when the machine is off"),
];

/// Units that only cost time, each with its reason.
const MASKED: &[(&str, &str)] = &[
    ("getty.target", "nobody logs in, and its console is the kernel's"),
    ("apt-daily.timer", "there is no network"),
    ("apt-daily-upgrade.timer", "there is no network"),
    ("dpkg-db-backup.timer", "a copy of the package database at the first boot"),
    ("fstrim.timer", "nothing to trim"),
    ("e2scrub_all.timer", "no logical volumes"),
    ("e2scrub_reap.service", "no logical volumes"),
    ("systemd-pstore.service", "its storage is not emulated"),
];

/// Under emulation, starting a unit takes time.
const MANAGER: &str = "[Manager]\nDefaultTimeoutStartSec=300\nDefaultDeviceTimeoutSec=300\n";

/// The initramfs for a kernel.
pub(super) fn initramfs(kernel: &Bootable, tools: &Tools) -> Result<Initramfs> {
    let mut initramfs = Initramfs::default();
    for name in ["/bin", "/dev", "/proc", "/sys", "/run", "/disk", "/modules"] {
        initramfs.directory(name);
    }
    initramfs.bytes("/init", INIT.as_bytes(), 0o755).copy(&tools.busybox, "/bin/busybox")?;
    for (number, module) in modules::to_load(kernel, MODULES, MODULES_IF_ANY)?.into_iter().enumerate() {
        initramfs.bytes(&format!("/modules/{number:02}-{}.ko", module.name), &module.bytes, 0o644);
    }
    initramfs.copy(&tools.guest_load, "/handover/schedswap/bin/guest-load")?;
    let units = "/handover/systemd/system";
    initramfs.bytes(&format!("{units}/schedswap-agent.service"), AGENT.as_bytes(), 0o644);
    initramfs.symlink(
        &format!("{units}/sysinit.target.wants/schedswap-agent.service"),
        "../schedswap-agent.service",
    );
    for (unit, _) in MASKED {
        initramfs.symlink(&format!("{units}/{unit}"), "/dev/null");
    }
    initramfs.bytes("/handover/systemd/system.conf.d/schedswap.conf", MANAGER.as_bytes(), 0o644);
    Ok(initramfs)
}
