//! Only the threads that ran after their stacks were walked are checked inside the stop. None may be missed: what a check of
//! all threads finds there, the log has to find.

use anyhow::{Context, Result, ensure};
use schedswap_tests::{MODULE, guest, own, pristine};
use std::fs;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(1200);
const CYCLES: u32 = 8;

/// In and out of a function that is replaced, and inside for some milliseconds.
const COMES_AND_GOES: &str = "
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(void)
{
	while (access(\"/run/stop\", F_OK)) {
		syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0);
		usleep(250000);
	}
	return 0;
}
";

/// So many threads run during a walk that the log is drained.
const LOAD: &str = "for i in 1 2 3; do comes & done
for i in $(seq 20); do while ! [ -e /run/stop ]; do sleep 0.01; done & done
wait";

/// Prints how many swaps were done, and how many were refused because a thread was inside.
const SWAP: &str = r#"#!/bin/sh
cd /sys/kernel/schedswap || exit
done=0 refused=0
while [ $done -lt $1 ]; do
    for side in 1 0; do
        until echo $side >enable 2>/dev/null; do
            refused=$((refused + 1))
            [ $refused -lt 2000 ] || exit 1
        done
    done
    done=$((done + 1))
done
echo $done $refused
"#;

#[test]
fn no_thread_that_runs_meanwhile_is_missed() -> Result<()> {
    let dir = own()?;
    let (source, program) = (dir.join("comes.c"), dir.join("comes"));
    fs::write(&source, COMES_AND_GOES)?;
    let status = Command::new("gcc").args(["-static", "-o"]).args([&program, &source]).status()?;
    ensure!(status.success(), "gcc");
    let guest = guest(&pristine()?, |config| {
        config.initramfs.copy(&program, "/bin/comes").expect("it was just made");
        config.initramfs.bytes("/bin/swap", SWAP.as_bytes(), 0o755);
        config.time_limit = LIMIT;
    })?;
    guest.sh(&format!("insmod {MODULE} enable=0 check_log=1"))?;
    let load = guest.start(LOAD, LIMIT)?;
    guest.sh("sleep 2")?;
    let output = guest.run_within(&format!("swap {CYCLES}"), LIMIT)?;
    ensure!(output.status == 0, "{output:?}");
    eprintln!("swaps and refusals: {}", output.stdout.trim());
    let missed = guest.sh("dmesg | grep 'the log missed' || true")?;
    ensure!(missed.is_empty(), "{missed}");
    // Otherwise no thread was ever inside, and nothing was tested.
    let inside = guest.sh("dmesg | grep -c 'busy: comes'")?;
    ensure!(inside.parse::<u32>().context("a number")? > 0, "nobody was inside");
    guest.sh("touch /run/stop")?;
    let load = guest.finish(load)?;
    ensure!(load.status == 0, "the load failed: {load:?}");
    guest.shutdown()?;
    Ok(())
}
