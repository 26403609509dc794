//! What the workers do: one function a kind of load, each looping until the load stops.

use super::board::{Board, Fault, Kind};
use super::calls::{PiMutex, Policy, fork, reap, set_policy, sleep_and_measure};
use anyhow::Result;
use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use std::hint::black_box;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Integer and floating-point rounds of one unit of computation; some 0.2 ms under emulation,
/// which does floating point in software.
const ROUNDS: u32 = 2_000;
const MS: u64 = 1_000_000;

type Body = Box<dyn FnOnce(&'static Board) -> Result<()> + Send>;

/// Every worker thread of the load, by name, for `cpus` CPUs.
pub fn workers(cpus: usize) -> Vec<(String, Body)> {
    let mut workers: Vec<(String, Body)> = Vec::new();
    let mut add = |name: String, body: Body| workers.push((name, body));
    for (index, nice) in [0, 5, 10, 19, -5].into_iter().cycle().take(cpus.max(2)).enumerate() {
        add(format!("cfs{index}"), Box::new(move |b| compute(b, Kind::Cfs, Policy::Normal(nice), None)));
    }
    add("batch".into(), Box::new(|b| compute(b, Kind::Batch, Policy::Batch, Some((1, 1)))));
    add("idle".into(), Box::new(compute_when_idle));
    for priority in [10, 20] {
        let name = format!("fifo{priority}");
        add(name, Box::new(move |b| compute(b, Kind::Fifo, Policy::Fifo(priority), Some((1, 6)))));
    }
    for index in 0..3 {
        add(
            format!("rr{index}"),
            Box::new(|b| compute(b, Kind::RoundRobin, Policy::RoundRobin(5), Some((2, 7)))),
        );
    }
    for index in 0..2 {
        add(format!("deadline{index}"), Box::new(deadline));
    }
    add("pipe".into(), Box::new(ping_pong));
    add("affinity".into(), Box::new(affinity));
    add("futex".into(), Box::new(futex));
    add("pi-futex".into(), Box::new(pi_futex));
    add("timer".into(), Box::new(timer));
    add("policy".into(), Box::new(policy));
    add("thread".into(), Box::new(threads));
    workers
}

/// One unit of computation, in integer and floating-point registers; false when the result is wrong, which
/// means that a switch lost registers.
pub fn unit() -> bool {
    fn rounds() -> (u64, u64) {
        let (mut integer, mut float) = (black_box(0x9e37_79b9_7f4a_7c15u64), black_box(1.0f64));
        for _ in 0..ROUNDS {
            integer ^= integer << 13;
            integer ^= integer >> 7;
            integer ^= integer << 17;
            float = float * 1.000_1 + 0.000_1;
        }
        (black_box(integer), black_box(float).to_bits())
    }
    static EXPECTED: std::sync::OnceLock<(u64, u64)> = std::sync::OnceLock::new();
    rounds() == *EXPECTED.get_or_init(rounds)
}

fn compute_for(board: &Board, length: Duration) {
    let begun = Instant::now();
    loop {
        if !unit() {
            board.fault(Fault::WrongResult, 1);
        }
        if begun.elapsed() >= length {
            break;
        }
    }
}

/// Sleeps `times` as long as has passed since `begun`, and `least` at least. Work of fixed length takes longer where
/// the host has little time for the guest; rests of fixed length would then leave threads of high priority on
/// the CPUs all the time, and no other thread would progress.
fn rest(begun: Instant, times: u32, least: Duration) {
    thread::sleep((begun.elapsed() * times).max(least));
}

/// Under SCHED_IDLE, without a pause. It ends only after a turn that began once the load was told to stop: then the
/// others leave the CPUs, and a scheduler that does not come back to it is found, by the load that does not end.
fn compute_when_idle(board: &'static Board) -> Result<()> {
    set_policy(Policy::Idle)?;
    loop {
        let is_last = board.stopping();
        compute_for(board, Duration::ZERO);
        board.count(Kind::Idle);
        if is_last {
            return Ok(());
        }
        if board.counted(Kind::Idle).is_multiple_of(64) {
            thread::yield_now();
        }
    }
}

/// Computes under `policy`; with `duty` (ms of work, its multiple to rest) it sleeps in between.
fn compute(board: &'static Board, kind: Kind, policy: Policy, duty: Option<(u64, u32)>) -> Result<()> {
    set_policy(policy)?;
    while !board.stopping() {
        let begun = Instant::now();
        compute_for(board, Duration::from_millis(duty.map_or(0, |(length, _)| length)));
        board.count(kind);
        match duty {
            Some((_, times)) => rest(begun, times, Duration::ZERO),
            None if board.counted(kind).is_multiple_of(64) => thread::yield_now(),
            None => {}
        }
    }
    Ok(())
}

/// Some 1 ms of work in each period of 50 ms, with 4 ms reserved. `sched_yield` ends the job.
fn deadline(board: &'static Board) -> Result<()> {
    set_policy(Policy::Deadline(4 * MS, 25 * MS, 50 * MS))?;
    while !board.stopping() {
        compute_for(board, Duration::from_millis(1));
        board.count(Kind::Deadline);
        thread::yield_now();
    }
    Ok(())
}

fn ping_pong(board: &'static Board) -> Result<()> {
    let (mut there_read, mut there_write) = std::io::pipe()?;
    let (mut back_read, mut back_write) = std::io::pipe()?;
    let echo = thread::spawn(move || {
        let mut byte = [0];
        while there_read.read(&mut byte).is_ok_and(|n| n == 1) && back_write.write_all(&byte).is_ok() {}
    });
    let mut byte = [0];
    while !board.stopping() {
        there_write.write_all(b"x")?;
        back_read.read_exact(&mut byte)?;
        board.count(Kind::Pipe);
        if board.counted(Kind::Pipe).is_multiple_of(32) {
            thread::sleep(Duration::from_millis(1));
        }
    }
    drop(there_write);
    let _ = echo.join();
    Ok(())
}

/// Asks for one CPU after the other and checks that it runs there.
fn affinity(board: &'static Board) -> Result<()> {
    let all = sched_getaffinity(None)?;
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| all.is_set(*cpu)).collect();
    for cpu in cpus.iter().copied().cycle() {
        if board.stopping() {
            break;
        }
        let mut one = CpuSet::new();
        one.set(cpu);
        // EINVAL: that CPU is off line just now.
        if sched_setaffinity(None, &one).is_ok() {
            // When a CPU goes off line the kernel widens the affinity of who may only run there; the second
            // look at the affinity tells that apart from a thread on a wrong CPU.
            if sched_getcpu() != cpu && sched_getaffinity(None)? == one {
                board.fault(Fault::WrongCpu, 1);
            }
            board.count(Kind::Affinity);
        }
        thread::sleep(Duration::from_millis(1));
    }
    sched_setaffinity(None, &all)?;
    Ok(())
}

/// Three threads that pass a lock and a condition variable around; the sum must add up.
fn futex(board: &'static Board) -> Result<()> {
    let shared = Arc::new((Mutex::new(0u64), Condvar::new()));
    let contender = |shared: Arc<(Mutex<u64>, Condvar)>| {
        let mut mine = 0;
        while !board.stopping() {
            let (lock, turn) = &*shared;
            let mut sum = lock.lock().expect("no contender panics");
            *sum += 1;
            mine += 1;
            board.count(Kind::Futex);
            turn.notify_one();
            let _ = turn.wait_timeout(sum, Duration::from_millis(5));
        }
        mine
    };
    let others: Vec<_> = (0..2)
        .map(|_| {
            let shared = shared.clone();
            thread::spawn(move || contender(shared))
        })
        .collect();
    let mut expected = contender(shared.clone());
    for other in others {
        expected += other.join().expect("no contender panics");
    }
    if *shared.0.lock().expect("no contender panics") != expected {
        board.fault(Fault::LostUpdate, 1);
    }
    Ok(())
}

/// A NORMAL, a FIFO and a BATCH thread at one priority-inheriting lock: the holder is boosted and
/// deboosted, which changes its class while it is queued or runs.
fn pi_futex(board: &'static Board) -> Result<()> {
    let lock = PiMutex::new();
    static SUM: AtomicU64 = AtomicU64::new(0);
    let contender = move |policy| -> Result<u64> {
        set_policy(policy)?;
        let mut mine = 0;
        while !board.stopping() {
            let begun = Instant::now();
            lock.with(|| {
                // Not an atomic addition: the lock is what makes it safe.
                let sum = SUM.load(Ordering::Relaxed);
                if !unit() {
                    board.fault(Fault::WrongResult, 1);
                }
                SUM.store(sum + 1, Ordering::Relaxed);
            });
            mine += 1;
            board.count(Kind::PiFutex);
            rest(begun, 2, Duration::from_millis(2));
        }
        Ok(mine)
    };
    let others = [Policy::Fifo(7), Policy::Batch].map(|policy| thread::spawn(move || contender(policy)));
    let mut expected = contender(Policy::Normal(10))?;
    for other in others {
        expected += other.join().expect("no contender panics")?;
    }
    if SUM.load(Ordering::Relaxed) != expected {
        board.fault(Fault::LostUpdate, 1);
    }
    Ok(())
}

fn timer(board: &'static Board) -> Result<()> {
    while !board.stopping() {
        let late = sleep_and_measure(Duration::from_millis(1)).as_nanos() as u64;
        board.timer_late_max_ns.fetch_max(late, Ordering::Relaxed);
        board.count(Kind::Timer);
    }
    Ok(())
}

/// Changes its own class and nice value all the time.
///
/// To DEADLINE only in a thread that ends thereafter. On kernels seen so far (6.1) a thread that leaves DEADLINE
/// with its budget overdrawn, and comes back after its replenishment (`dl_task_timer`, which ignores threads of
/// other policies) but before its zero-lag time (`inactive_task_timer`, which would clear `dl_throttled`), is
/// throttled for ever: a fault of the kernel's own that a slow guest meets within a minute.
fn policy(board: &'static Board) -> Result<()> {
    let policies = [
        Policy::Normal(0),
        Policy::Fifo(3),
        Policy::Normal(-10),
        Policy::RoundRobin(4),
        Policy::Batch,
        Policy::Deadline(2 * MS, 10 * MS, 10 * MS),
        Policy::Normal(10),
    ];
    for policy in policies.into_iter().cycle() {
        if board.stopping() {
            break;
        }
        if !matches!(policy, Policy::Deadline(..)) {
            work_under(policy, board)?;
            continue;
        }
        let passing = move || -> Result<()> {
            // Admission is refused while a CPU goes off line; everything else must succeed.
            if work_under(policy, board).is_ok() {
                work_under(Policy::Normal(0), board)?;
            }
            Ok(())
        };
        thread::spawn(passing).join().expect("who changes policy does not panic")?;
    }
    Ok(())
}

fn work_under(policy: Policy, board: &Board) -> Result<()> {
    let begun = Instant::now();
    set_policy(policy)?;
    board.count(Kind::Policy);
    if !unit() {
        board.fault(Fault::WrongResult, 1);
    }
    rest(begun, 3, Duration::from_millis(1));
    Ok(())
}

fn threads(board: &'static Board) -> Result<()> {
    while !board.stopping() {
        if thread::spawn(unit).join().ok() == Some(false) {
            board.fault(Fault::WrongResult, 1);
        }
        board.count(Kind::Thread);
        thread::sleep(Duration::from_millis(4));
    }
    Ok(())
}

/// Forks and reaps children. Runs in a process of its own with one thread: [`fork`] asks for that.
pub fn forks(board: &'static Board) -> i32 {
    while !board.stopping() {
        match fork(|| i32::from(!unit())).and_then(reap) {
            Ok(0) => {}
            Ok(_) => board.fault(Fault::WrongResult, 1),
            Err(_) => board.fault(Fault::FailedCall, 1),
        }
        board.count(Kind::Fork);
        thread::sleep(Duration::from_millis(4));
    }
    0
}

/// Computes without a pause, as the processes under a quota do.
pub fn burn(board: &'static Board) -> i32 {
    while !board.stopping() {
        if !unit() {
            board.fault(Fault::WrongResult, 1);
        }
        board.count(Kind::Quota);
    }
    0
}
