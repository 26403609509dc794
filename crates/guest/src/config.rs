//! What a guest consists of, and the command lines that follow from it.

use super::platform::Platform;
use super::{Disk, Firmware, Initramfs};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The kernel parameters of every guest, each with its reason. [`Config::append`] comes after them, so a user's value
/// takes precedence.
pub const KERNEL_PARAMETERS: &[(&str, &str)] = &[
    ("loglevel=8", "every message counts, even those below the level of a warning"),
    ("log_buf_len=4M", "a burst of messages must not push a complaint out before it is printed"),
    ("panic=-1", "restart at once on a panic; with QEMU's -no-reboot, that ends QEMU"),
    (
        "oops=panic",
        "after an oops locks stay held: the guest would hang until the time limit instead of ending",
    ),
    ("tsc=reliable", "the emulated TSC is steady, but a busy host makes its watchdog think otherwise"),
    ("no_timer_check", "the boot-time timer test fails if the host takes the CPU away during the test"),
    (
        "rcupdate.rcu_cpu_stall_timeout=100",
        "a busy host may stop a virtual CPU for seconds; a real stall lasts longer",
    ),
    (
        "rcupdate.rcu_task_stall_info=25000",
        "the same for grace periods of RCU tasks, otherwise reported after 10 s; in jiffies, of which most \
         kernels have 250 a second",
    ),
    (
        "watchdog_thresh=60",
        "the same for soft lockups, which are found after twice as many seconds; this is the maximum",
    ),
    ("workqueue.watchdog_thresh=100", "the same for work queues, in kernels that watch them"),
    ("unknown_nmi_panic", "a guest that does not answer is sent an NMI, and has to say where it is"),
    ("panic_print=0x40", "after the NMI all CPUs say where they are, not only the one that panics"),
];

/// The configuration of a guest.
#[derive(Clone, Debug)]
pub struct Config {
    /// The kernel image (bzImage, `vmlinuz-*`).
    pub kernel: PathBuf,
    /// The files in its initramfs.
    pub initramfs: Initramfs,
    /// Its disks.
    pub disks: Vec<Disk>,
    /// The firmware that boots the kernel; if `None`, QEMU boots it, and there is no UEFI.
    pub firmware: Option<Firmware>,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// NUMA nodes, which share CPUs and memory evenly.
    pub numa_nodes: u32,
    /// Further kernel parameters.
    pub append: Vec<String>,
    /// QEMU's CPU model.
    pub cpu_model: String,
    /// If `Some(n)`, guest time counts instructions, at 2ⁿ ns each, and all CPUs share one host thread: slow, but the
    /// same on every machine.
    pub icount: Option<u8>,
    /// Emulate each CPU on a thread of its own, so that they really run at the same time. The emulator then
    /// occasionally keeps using its translation of code that another CPU has just patched, and hangs.
    pub parallel: bool,
    /// Where to keep the console; if `None`, it is deleted with the guest.
    pub console: Option<PathBuf>,
    /// The limit for the guest's whole life.
    pub time_limit: Duration,
    /// The limit from launch until the agent answers.
    pub boot_limit: Duration,
    /// The limit for one command that is not given its own.
    pub command_limit: Duration,
    /// Taint flags (letters) that do not count as complaints.
    pub allowed_taints: String,
    /// The emulator: a path, or a name to look for in PATH.
    pub qemu: PathBuf,
    /// The machine that it emulates.
    platform: Platform,
}

impl Config {
    /// 4 CPUs, 2 GiB, and limits for a host that has other work as well.
    pub fn new(kernel: &Path, initramfs: Initramfs) -> Config {
        let platform = Platform::of_image(kernel);
        Config {
            kernel: kernel.to_path_buf(),
            initramfs,
            disks: Vec::new(),
            firmware: None,
            cpus: 4,
            memory_mib: 2048,
            numa_nodes: 1,
            append: Vec::new(),
            cpu_model: platform.cpu_model.to_string(),
            icount: None,
            parallel: false,
            console: None,
            time_limit: Duration::from_secs(900),
            boot_limit: Duration::from_secs(300),
            command_limit: Duration::from_secs(120),
            allowed_taints: "OE".to_string(),
            qemu: platform.qemu.into(),
            platform,
        }
    }

    /// The kernel's command line.
    pub(super) fn command_line(&self) -> String {
        let fixed = KERNEL_PARAMETERS.iter().map(|(parameter, _)| *parameter);
        // The first serial port is the console; the second belongs to the agent.
        let console = format!("console={}", self.platform.console);
        let fixed = std::iter::once(console.as_str()).chain(fixed);
        fixed.chain(self.append.iter().map(String::as_str)).collect::<Vec<_>>().join(" ")
    }

    /// QEMU's arguments. The agent's serial port is QEMU's standard input, and its monitor the standard output; both
    /// are sockets.
    pub(super) fn qemu_arguments(&self, initramfs: &Path, console: &Path) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        let mut add = |words: &[&str]| arguments.extend(words.iter().map(OsString::from));
        match self.icount {
            // Counting instructions requires one thread for all CPUs.
            Some(shift) => {
                add(&["-accel", "tcg,thread=single", "-icount", &format!("shift={shift},sleep=off")]);
            }
            None if self.parallel => add(&["-accel", "tcg,thread=multi"]),
            None => add(&["-accel", "tcg,thread=single"]),
        }
        add(self.platform.board);
        add(&["-cpu", &self.cpu_model, "-smp", &self.cpu_topology()]);
        add(&["-m", &format!("{}M", self.memory_mib)]);
        for option in self.numa_options() {
            add(&option.each_ref().map(String::as_str));
        }
        add(&["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        add(&[
            "-chardev",
            &format!("file,id=console,path={}", option_value(console)),
            "-serial",
            "chardev:console",
        ]);
        add(&["-chardev", "socket,id=agent,fd=0"]);
        add(self.platform.agent);
        add(&["-chardev", "socket,id=monitor,fd=1", "-mon", "chardev=monitor"]);
        add(&["-append", &self.command_line()]);
        arguments.extend(self.disks.iter().flat_map(Disk::qemu_arguments));
        arguments.extend(self.firmware.iter().flat_map(Firmware::qemu_arguments));
        arguments.extend(["-kernel".into(), self.kernel.clone().into()]);
        arguments.extend(["-initrd".into(), initramfs.into()]);
        arguments
    }
}

impl Config {
    /// CPUs, a socket for each node: CPUs that share a cache are of one node.
    fn cpu_topology(&self) -> String {
        match self.numa_nodes {
            0 | 1 => self.cpus.to_string(),
            nodes => format!("{},sockets={nodes},cores={},threads=1", self.cpus, self.cpus / nodes),
        }
    }

    /// Pairs of option and value; none for a machine without nodes.
    fn numa_options(&self) -> Vec<[String; 2]> {
        let (nodes, cpus, mib) = (self.numa_nodes, self.cpus, self.memory_mib);
        if nodes < 2 {
            return Vec::new();
        }
        let options = |node: u32| {
            let (first, last) = (node * cpus / nodes, (node + 1) * cpus / nodes - 1);
            [
                ["-object".to_owned(), format!("memory-backend-ram,id=node{node},size={}M", mib / nodes)],
                ["-numa".to_owned(), format!("node,nodeid={node},cpus={first}-{last},memdev=node{node}")],
            ]
        };
        (0..nodes).flat_map(options).collect()
    }
}

/// A path within an option of QEMU, where a comma ends the value unless doubled.
pub(super) fn option_value(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_parameter_comes_last() {
        let mut config = Config::new("k".as_ref(), Initramfs::default());
        config.append.push("loglevel=4".into());
        assert!(config.command_line().ends_with(" loglevel=4"));
        assert!(config.command_line().contains("panic=-1"));
    }

    #[test]
    fn nodes_share_cpus_and_memory() {
        let mut config = Config::new("k".as_ref(), Initramfs::default());
        let text = |config: &Config| format!("{:?}", config.qemu_arguments("i".as_ref(), "c".as_ref()));
        assert!(!text(&config).contains("-numa"));
        config.numa_nodes = 2;
        let text = text(&config);
        assert!(text.contains("4,sockets=2,cores=2,threads=1"), "{text}");
        assert!(text.contains("node,nodeid=0,cpus=0-1,memdev=node0"), "{text}");
        assert!(
            text.contains("node,nodeid=1,cpus=2-3,memdev=node1") && text.contains("id=node1,size=1024M"),
            "{text}"
        );
    }

    #[test]
    fn icount_takes_one_thread() {
        let mut config = Config::new("k".as_ref(), Initramfs::default());
        let text = |config: &Config| format!("{:?}", config.qemu_arguments("i".as_ref(), "a,b".as_ref()));
        assert!(text(&config).contains("thread=single"));
        assert!(text(&config).contains("path=a,,b"));
        config.parallel = true;
        assert!(text(&config).contains("thread=multi"));
        config.icount = Some(1);
        assert!(text(&config).contains("thread=single") && text(&config).contains("shift=1"));
    }
}
