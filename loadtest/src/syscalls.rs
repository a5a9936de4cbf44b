//! Counts the system calls of the server with `perf stat`, which must be installed and allowed to trace. Counting makes every
//! system call of the machine a little slower.

use std::io::Read;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::procfs;

/// A count that is under way.
pub struct Counting(Child);

impl Counting {
    /// Starts to count the calls of `pid` and its children.
    pub fn start(pid: u32) -> anyhow::Result<Counting> {
        let family: Vec<String> = procfs::family(pid).iter().map(u32::to_string).collect();
        let perf = Command::new("perf")
            // In intervals, because perf reports their times: it takes a while to begin.
            .args(["stat", "-x,", "-I", "100", "-e", EVENT, "-p", &family.join(",")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start perf")?;
        Ok(Counting(perf))
    }

    /// Ends the count. Returns system calls per second.
    pub fn finish(mut self) -> anyhow::Result<f64> {
        // If perf has ended by itself, its output says why.
        let _ = kill_process(Pid::from_child(&self.0), Signal::INT);
        let mut said = String::new();
        self.0.stderr.take().context("no output")?.read_to_string(&mut said)?;
        self.0.wait()?;
        let (seconds, calls) = sum(&said);
        ensure!(seconds > 0.0, "perf counted nothing: {}", said.lines().next().unwrap_or_default());
        Ok(calls / seconds)
    }
}

/// Seconds and calls of all intervals in the output of perf: lines of `seconds since its start,calls,,event,…`.
fn sum(said: &str) -> (f64, f64) {
    let intervals = said.lines().filter_map(|line| {
        let mut fields = line.split(',').map(str::trim);
        let (seconds, calls) = (fields.next()?.parse::<f64>().ok()?, fields.next()?.parse::<f64>().ok()?);
        Some((seconds, calls))
    });
    intervals.fold((0.0, 0.0), |(_, sum), (seconds, calls)| (seconds, sum + calls))
}

const EVENT: &str = "raw_syscalls:sys_enter";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_add_up() {
        let said = "     0.100105061,2200,,raw_syscalls:sys_enter,100,100.00,,\n     0.150,800,,raw_syscalls:sys_enter,50,100.00,,\n";
        assert_eq!(sum(said), (0.15, 3000.0));
        assert_eq!(sum("event syntax error: 'raw_syscalls:sys_enter'\n"), (0.0, 0.0));
    }
}
