//! A guest whose clock counts instructions, one ns each (`-icount`): what the host does meanwhile does not show.

use schedswap_guest::Config;
use std::time::Duration;

/// It is slow.
const LIMIT: Duration = Duration::from_secs(3600);
const BOOT_LIMIT: Duration = Duration::from_secs(600);

/// Makes it one of these.
pub fn counted(config: &mut Config) {
    config.cpus = 1;
    config.icount = Some(0);
    config.time_limit = LIMIT;
    config.boot_limit = BOOT_LIMIT;
    config.command_limit = LIMIT;
}
