// SPDX-License-Identifier: BSL-1.0
//
// What the scenarios are made of: the probe, the hog, and whether they did what they should.

use crate::options::{Failure, Options, Scenario};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::{yield_now, JoinHandle};
use tokio::time::{interval_at, sleep_until, Instant};

pub const STEP: Duration = Duration::from_micros(10);
pub const REQUEST: Duration = Duration::from_micros(20);
const PROBE_PERIOD: Duration = Duration::from_millis(1);
const HOG_PAUSE: Duration = Duration::from_millis(5); // starvation: between two bursts
const HOG_PERIOD: Duration = Duration::from_millis(100); // latency: from burst to burst

pub fn spin(duration: Duration) {
    let end = Instant::now() + duration;
    while Instant::now() < end {}
}

pub fn check(holds: bool, sentence: String) -> Result<(), Failure> {
    if holds {
        Ok(())
    } else {
        Err(Failure::Run(sentence))
    }
}

pub async fn join<T>(task: JoinHandle<T>) -> Result<T, Failure> {
    task.await
        .map_err(|error| Failure::Run(format!("a task did not end by itself: {error}")))
}

/// When a run ends, in nanoseconds since its start; a storm's end is known only when it is over.
pub struct End(AtomicU64);

impl End {
    pub fn after(duration: Duration) -> Arc<End> {
        Arc::new(End(AtomicU64::new(duration.as_nanos() as u64)))
    }
    pub fn unknown() -> Arc<End> {
        Arc::new(End(AtomicU64::new(u64::MAX)))
    }
    pub fn set(&self, elapsed: Duration) {
        self.0.store(elapsed.as_nanos() as u64, Relaxed);
    }
    pub fn is_before(&self, due: Duration) -> bool {
        u128::from(self.0.load(Relaxed)) < due.as_nanos()
    }
}

/// How late each deadline was: one each millisecond, until the end. An interval's missed ticks come
/// at once, each with its own deadline (MissedTickBehavior::Burst, the default).
pub async fn probe(start: Instant, end: Arc<End>, armed: oneshot::Sender<()>) -> Vec<Duration> {
    let mut lateness = Vec::with_capacity(1 << 16);
    let mut ticks = interval_at(start + PROBE_PERIOD, PROBE_PERIOD);
    let _ = armed.send(());
    loop {
        let due = ticks.tick().await;
        let late = due.elapsed();
        if end.is_before(due - start) {
            return lateness;
        }
        lateness.push(late);
    }
}

pub fn check_probe(lateness: &[Duration], ran_for: Duration) -> Result<(), Failure> {
    let deadlines = ran_for.as_millis() as usize;
    check(
        deadlines > 0 && lateness.len() == deadlines,
        format!(
            "the probe fired {} times for {deadlines} deadlines",
            lateness.len()
        ),
    )
}

#[derive(Default)]
pub struct Hogged {
    pub bursts: u64,
    pub steps: u64,
    busy: Duration,
}

/// Bursts of 10 us steps until the run ends; a burst that was begun is finished.
pub async fn hog(options: Options, start: Instant) -> Hogged {
    let mut done = Hogged::default();
    while options.hog_steps() > 0 && start.elapsed() < options.duration {
        let begun = Instant::now();
        for _ in 0..options.hog_steps() {
            spin(STEP);
            done.steps += 1;
            if options.cooperative {
                yield_now().await;
            }
        }
        done.busy += begun.elapsed();
        done.bursts += 1;
        sleep_until(match options.scenario {
            Scenario::Latency => start + HOG_PERIOD * done.bursts as u32,
            _ => Instant::now() + HOG_PAUSE,
        })
        .await;
    }
    done
}

pub fn check_hog(done: &Hogged, options: &Options) -> Result<(), Failure> {
    let expected = done.bursts * options.hog_steps();
    check(
        done.steps == expected
            && done.busy >= STEP * done.steps as u32
            && (done.bursts > 0) == (options.hog_steps() > 0),
        format!(
            "the hog did {} of {expected} steps in {:?}",
            done.steps, done.busy
        ),
    )
}
