//! The cores of the process, and binding threads to them.

use std::sync::OnceLock;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Binds the calling thread, and the threads and processes that it starts, to a core. Numbers beyond the last core wrap
/// around.
pub fn pin_this_thread(core: usize) {
    let cores = cores();
    if let Some(&core) = cores.get(core % cores.len().max(1)) {
        let mut set = CpuSet::new();
        set.set(core);
        // If it fails, the thread runs unbound.
        let _ = sched_setaffinity(None, &set);
    }
}

/// Lets the calling thread, and the threads and processes that it starts, run on every core of the process.
pub fn unpin_this_thread() {
    let mut set = CpuSet::new();
    cores().iter().for_each(|&core| set.set(core));
    // If it fails, the thread stays bound.
    let _ = sched_setaffinity(None, &set);
}

/// Runs `body` on a thread that is bound to `core`. Processes that it starts inherit the core.
pub fn on_core<T: Send>(core: Option<usize>, body: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if let Some(core) = core {
                pin_this_thread(core);
            }
            body()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The cores that the process had when it started.
pub fn cores() -> &'static [usize] {
    static CORES: OnceLock<Vec<usize>> = OnceLock::new();
    CORES.get_or_init(|| {
        let Ok(set) = sched_getaffinity(None) else {
            return vec![0];
        };
        (0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect()
    })
}
