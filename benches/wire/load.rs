//! The same small request, on many connections at once.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::connection::Server;

#[derive(Args)]
pub(crate) struct Load {
    method: String,
    path: String,
    /// The status every reply must have.
    status: u16,
    #[arg(long, default_value_t = 32)]
    connections: usize,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// More headers, as in `If-None-Match: "…"`.
    #[arg(long)]
    header: Vec<String>,
}

impl Load {
    pub(crate) fn run(&self, server: &Server) -> Result<String> {
        let mut head = server.head(&self.method, &self.path);
        for header in &self.header {
            head = format!("{head}{header}\r\n");
        }
        let ready = Barrier::new(self.connections + 1);
        let (times, seconds) = thread::scope(|scope| {
            let threads: Vec<_> = (0..self.connections)
                .map(|_| scope.spawn(|| self.ask(server, &head, &ready)))
                .collect();
            ready.wait();
            let start = Instant::now();
            let mut times = Vec::new();
            for thread in threads {
                times.extend(thread.join().ok().context("a thread panicked")??);
            }
            Ok::<_, anyhow::Error>((times, start.elapsed().as_secs_f64()))
        })?;
        let mut times = times;
        times.sort_unstable();
        let at = |share: usize| {
            let time = times.get(times.len() * share / 100).copied();
            time.unwrap_or_default().as_secs_f64() * 1000.0
        };
        Ok(format!(
            "{} {seconds:.3} {:.3} {:.3}",
            times.len(),
            at(50),
            at(99)
        ))
    }

    /// Asks until the time is over; how long each reply took. The first is not counted: the server
    /// may still have to check the password.
    fn ask(&self, server: &Server, head: &str, ready: &Barrier) -> Result<Vec<Duration>> {
        let first = server.connect().and_then(|mut connection| {
            connection.ask(head, b"")?;
            Ok(connection)
        });
        ready.wait();
        let mut connection = first?;
        let end = Instant::now() + Duration::from_secs_f64(self.seconds);
        let mut times = Vec::with_capacity(1 << 16);
        loop {
            let start = Instant::now();
            if start > end {
                return Ok(times);
            }
            let reply = connection.ask(head, b"")?;
            times.push(start.elapsed());
            ensure!(reply.status == self.status, "status {}", reply.status);
        }
    }
}
