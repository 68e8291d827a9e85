// SPDX-License-Identifier: BSL-1.0
//
// The scenarios starvation, storm and latency on tokio. What each does, and how it corresponds to the
// programs beside it: README.md in the folder above.

mod options;
mod work;

use options::{Failure, Options, Scenario};
use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{interval_at, Instant}; // Instant: CLOCK_MONOTONIC
use work::{check, check_hog, check_probe, hog, join, probe, spin, End, REQUEST, STEP};

/// What a scenario measured, once it has seen that all of its work was done.
struct Outcome {
    samples: (&'static str, Vec<Duration>),
    values: Vec<(&'static str, f64)>,
    verification: String,
}

async fn starvation(options: Options, start: Instant) -> Result<Outcome, Failure> {
    let probe = tokio::spawn(probe(
        start,
        End::after(options.duration),
        oneshot::channel().0,
    ));
    let hog = tokio::spawn(hog(options, start));
    let (lateness, hogged) = (join(probe).await?, join(hog).await?);
    let elapsed = start.elapsed();
    check_probe(&lateness, options.duration)?;
    check_hog(&hogged, &options)?;
    Ok(Outcome {
        values: vec![
            ("hog_steps", hogged.steps as f64),
            ("hog_bursts", hogged.bursts as f64),
            ("probes", lateness.len() as f64),
            ("elapsed_ms", elapsed.as_secs_f64() * 1e3),
        ],
        verification: format!(
            "each of the hog's {} bursts did its {} steps; the probe fired once for each of {} deadlines",
            hogged.bursts, options.hog_steps(), lateness.len()
        ),
        samples: ("probe_lateness", lateness),
    })
}

async fn storm(options: Options, start: Instant) -> Result<Outcome, Failure> {
    let ran: Arc<Vec<AtomicU32>> =
        Arc::new((0..options.tasks).map(|_| AtomicU32::new(0)).collect());
    let end = End::unknown();
    let (armed, is_armed) = oneshot::channel();
    let probe = tokio::spawn(probe(start, end.clone(), armed));
    // Its timer is set before the storm: the queue is first come, first served.
    is_armed
        .await
        .map_err(|_| Failure::Run("the probe did not start".into()))?;
    let tasks: Vec<_> = (0..options.tasks)
        .map(|task| {
            let ran = ran.clone();
            tokio::spawn(async move {
                spin(STEP);
                ran[task].fetch_add(1, Relaxed);
            })
        })
        .collect();
    let posted = start.elapsed();
    for task in tasks {
        join(task).await?;
    }
    let elapsed = start.elapsed();
    end.set(elapsed);
    let lateness = join(probe).await?;
    let once = ran.iter().filter(|runs| runs.load(Relaxed) == 1).count();
    check(
        once == options.tasks,
        format!("{once} of {} tasks ran exactly once", options.tasks),
    )?;
    check_probe(&lateness, elapsed)?;
    Ok(Outcome {
        values: vec![
            ("tasks", once as f64),
            ("probes", lateness.len() as f64),
            ("posted_ms", posted.as_secs_f64() * 1e3),
            ("elapsed_ms", elapsed.as_secs_f64() * 1e3),
        ],
        verification: format!(
            "each of {once} tasks ran exactly once; the probe fired once for each of {} deadlines",
            lateness.len()
        ),
        samples: ("probe_lateness", lateness),
    })
}

async fn latency(options: Options, start: Instant) -> Result<Outcome, Failure> {
    let hog = tokio::spawn(hog(options, start));
    let arrivals = tokio::spawn(async move {
        let mut requests = Vec::with_capacity(options.arrivals());
        let mut ticks = interval_at(start + options.arrival_period(), options.arrival_period());
        for _ in 0..options.arrivals() {
            let due = ticks.tick().await;
            requests.push(tokio::spawn(async move {
                spin(REQUEST);
                due.elapsed()
            }));
        }
        requests
    });
    let mut latencies = Vec::with_capacity(options.arrivals());
    for request in join(arrivals).await? {
        latencies.push(join(request).await?);
    }
    let hogged = join(hog).await?;
    let elapsed = start.elapsed();
    check(
        latencies.len() == options.arrivals()
            && latencies.iter().all(|&latency| latency >= REQUEST),
        format!(
            "{} of {} requests were completed",
            latencies.len(),
            options.arrivals()
        ),
    )?;
    check_hog(&hogged, &options)?;
    Ok(Outcome {
        values: vec![
            ("arrivals", options.arrivals() as f64),
            ("completions", latencies.len() as f64),
            ("hog_steps", hogged.steps as f64),
            ("hog_bursts", hogged.bursts as f64),
            ("elapsed_ms", elapsed.as_secs_f64() * 1e3),
        ],
        verification: format!(
            "each of {} arrivals was completed once; each of the hog's {} bursts did its {} steps",
            latencies.len(),
            hogged.bursts,
            options.hog_steps()
        ),
        samples: ("latency", latencies),
    })
}

fn run() -> Result<(), Failure> {
    let options = Options::parse(std::env::args_os().skip(1))?;
    let mut builder = if options.workers == 1 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let made = Instant::now();
    let runtime = builder
        .worker_threads(options.workers)
        .enable_all()
        .build()
        .map_err(|error| Failure::Run(format!("no runtime: {error}")))?;
    // A runtime's timers fire at whole milliseconds of its age. Deadlines that lie there leave out up to
    // 1 ms of lateness that would say only where the start happened to fall.
    let start = made + Duration::from_millis(made.elapsed().as_millis() as u64);
    // As a task: with several workers, block_on would run it on a thread beside them.
    let main = match options.scenario {
        Scenario::Starvation => runtime.spawn(starvation(options, start)),
        Scenario::Storm => runtime.spawn(storm(options, start)),
        Scenario::Latency => runtime.spawn(latency(options, start)),
    };
    let outcome = runtime.block_on(join(main))??;
    let samples: Vec<_> = outcome
        .samples
        .1
        .iter()
        .map(|s| s.as_nanos().to_string())
        .collect();
    let values: Vec<_> = outcome
        .values
        .iter()
        .map(|(name, value)| format!("\"{name}\":{value}"))
        .collect();
    let line = format!(
        "{{\"arm\":\"tokio\",\"label\":\"tokio {}\",\"scenario\":\"{}\",\"variant\":\"{}\",\
         \"samples_ns\":{{\"{}\":[{}]}},\"values\":{{{}}},\"verified\":true,\"verification\":\"{}\"}}\n",
        env!("PEER_TOKIO_VERSION"), options.scenario.name(), options.variant(),
        outcome.samples.0, samples.join(","), values.join(","), outcome.verification
    );
    std::io::stdout()
        .write_all(line.as_bytes())
        .map_err(|error| Failure::Run(format!("could not write the result: {error}")))
}

fn main() -> ExitCode {
    let (status, sentence) = match run() {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Usage(sentence)) => (2, sentence),
        Err(Failure::Run(sentence)) => (1, sentence),
    };
    eprintln!("peer_tokio: {sentence}");
    ExitCode::from(status)
}
