#!/bin/busybox sh
# PID 1 of a schedswap test guest: mounts what programs expect, then starts the agent.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C
bb=/bin/busybox

# Programs of the host are there already; applets of the same name do not replace them.
$bb --install -s /usr/bin 2>/dev/null
$bb mkdir -p /proc /sys /dev /run /tmp /root /var/tmp /var/log /etc
$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs devtmpfs /dev
$bb mkdir -p /dev/pts /dev/shm
$bb mount -t devpts devpts /dev/pts
$bb mount -t tmpfs tmpfs /dev/shm
$bb mount -t tmpfs tmpfs /run
$bb mount -t tmpfs tmpfs /tmp
$bb mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null
$bb mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null
$bb mount -t cgroup2 cgroup2 /sys/fs/cgroup 2>/dev/null && echo +cpu >/sys/fs/cgroup/cgroup.subtree_control
$bb ln -s /proc/self/fd /dev/fd 2>/dev/null
$bb hostname guest
$bb ip link set lo up 2>/dev/null

# Allow 100,000 threads: a stack takes two mappings.
echo 4194304 >/proc/sys/kernel/pid_max
echo 200000 >/proc/sys/kernel/threads-max
echo 1000000 >/proc/sys/vm/max_map_count
# Addresses are needed to compare kernel memory; the guest has no secrets.
echo 0 >/proc/sys/kernel/kptr_restrict
# Allow every kind of SysRq, for tests that plant faults.
echo 1 >/proc/sys/kernel/sysrq
# Otherwise the kernel drops what programs write to /dev/kmsg in a burst.
echo on >/proc/sys/kernel/printk_devkmsg
ulimit -n 65536
ulimit -c 0

[ -f /etc/schedswap-setup ] && . /etc/schedswap-setup
# The serial port that is not the console.
port=/dev/ttyS1
[ -c /dev/ttyAMA0 ] && port=/dev/ttyS0
/usr/bin/guest-load agent $port
echo "guest agent ended with $?" >/dev/kmsg
$bb reboot -f
