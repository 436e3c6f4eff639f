//! Works inside one process, as a user of tokio writes them.
//!
//! Tokio has no channel that holds nothing: `hop` has one that holds one message. In a runtime of two workers, a task that
//! is woken runs next on its waker's worker; so that `round-trip` goes from one to the other, it has two runtimes.

use clap::Parser;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::timeout;
use towpath_bench::Result;
use towpath_bench::inproc::{Args, NEVER, Work, parked, timed};

fn main() -> Result<()> {
    let work = Args::parse().work;
    let runtime = runtime(work.workers())?;
    // On a worker, where tasks are spawned from: `block_on` runs its future on the calling thread.
    match work {
        Work::Spawn => timed(|count| {
            run(&runtime, async move {
                for _ in 0..count {
                    tokio::spawn(async {}).await.unwrap();
                }
            });
        }),
        Work::Yield => timed(|count| {
            run(&runtime, async move {
                let other = tokio::spawn(yields(count / 2));
                yields(count / 2).await;
                other.await.unwrap();
            });
        }),
        Work::Hop => timed(|count| {
            run(&runtime, async move {
                let (sender, mut receiver) = mpsc::channel(1);
                let other = tokio::spawn(send_all(sender, count));
                for number in 0..count {
                    assert_eq!(receiver.recv().await, Some(number));
                }
                other.await.unwrap();
            });
        }),
        Work::HopTimeout => timed(|count| {
            run(&runtime, async move {
                let (sender, mut receiver) = mpsc::channel(1);
                let other = tokio::spawn(send_all(sender, count));
                for number in 0..count {
                    assert_eq!(timeout(NEVER, receiver.recv()).await.unwrap(), Some(number));
                }
                other.await.unwrap();
            });
        }),
        Work::RoundTrip => round_trip(),
        Work::Parked { tasks, .. } => parked(
            || run(&runtime, park_all(tasks)),
            |(go_on, handles)| {
                run(&runtime, async move {
                    go_on.close();
                    for handle in handles {
                        handle.await.unwrap();
                    }
                });
            },
        ),
    }
}

fn runtime(workers: usize) -> std::io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(workers).enable_time().build()
}

fn run<T: Send + 'static>(runtime: &Runtime, future: impl Future<Output = T> + Send + 'static) -> T {
    runtime.block_on(runtime.spawn(future)).unwrap()
}

async fn yields(count: u64) {
    for _ in 0..count {
        yield_now().await;
    }
}

async fn send_all(sender: mpsc::Sender<u64>, count: u64) {
    for number in 0..count {
        sender.send(number).await.unwrap();
    }
}

fn round_trip() -> Result<()> {
    let (here, there) = (runtime(1)?, runtime(1)?);
    timed(|count| {
        let ((ask, mut asked), (answer, mut answered)) = (mpsc::channel(1), mpsc::channel(1));
        let other = there.spawn(async move {
            while let Some(number) = asked.recv().await {
                answer.send(number).await.unwrap();
            }
        });
        run(&here, async move {
            for number in 0..count {
                ask.send(number).await.unwrap();
                assert_eq!(answered.recv().await, Some(number));
            }
        });
        there.block_on(other).unwrap();
    })
}

/// Returns when all wait for the semaphore to close.
async fn park_all(tasks: usize) -> (Arc<Semaphore>, Vec<JoinHandle<()>>) {
    let go_on = Arc::new(Semaphore::new(0));
    let (all, are_there) = oneshot::channel();
    let all = Arc::new(std::sync::Mutex::new(Some(all)));
    let count = Arc::new(AtomicUsize::new(0));
    let task = |_| {
        let (go_on, all, count) = (go_on.clone(), all.clone(), count.clone());
        tokio::spawn(async move {
            if count.fetch_add(1, Ordering::Relaxed) + 1 == tasks {
                all.lock().unwrap().take().unwrap().send(()).unwrap();
            }
            assert!(go_on.acquire().await.is_err());
        })
    };
    let handles = (0..tasks).map(task).collect();
    are_there.await.unwrap();
    (go_on, handles)
}
