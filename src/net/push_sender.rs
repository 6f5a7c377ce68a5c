//! Worker threads that send pushes, so that the event loop does not wait for push services.
//!
//! Push services may be slow or unreachable. The loop passes a job to an idle thread and is woken
//! when the job is done. The first push starts the threads, so a server without subscriptions has
//! none.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::Builder;

use crate::limits::PUSH_THREADS;
use crate::net::push_client::{PushClient, PushRules};
use crate::push::vapid::VapidKey;
use crate::push::{Done, Job, Outcome};

/// Stack size of a thread, in bytes.
const STACK_BYTES: usize = 1024 * 1024;

/// Called when a result can be fetched.
type Wake = Arc<dyn Fn() + Send + Sync>;

/// The event loop's end of the threads. Dropping it leaves them running: pushes in progress are
/// sent again after the next start, so a shutdown need not wait for a push service.
pub(super) struct PushSender {
    key: Arc<VapidKey>,
    rules: PushRules,
    wake: Wake,
    threads: Vec<Thread>,
    done: Receiver<(usize, Done)>,
    done_out: Sender<(usize, Done)>,
}

/// The loop's end of one worker thread.
struct Thread {
    jobs: SyncSender<Job>,
    is_busy: bool,
}

impl PushSender {
    pub(super) fn new(key: Arc<VapidKey>, rules: PushRules, wake: Wake) -> Self {
        let (done_out, done) = channel();
        Self { key, rules, wake, threads: Vec::new(), done, done_out }
    }

    /// Passes a job to an idle thread. False if there is none: the caller then fails the job.
    pub(super) fn submit(&mut self, job: Job) -> bool {
        if self.threads.is_empty()
            && let Err(error) = self.start()
        {
            log::error!("cannot start a thread for pushes: {error}");
        }
        let Some(thread) = self.threads.iter_mut().find(|thread| !thread.is_busy) else {
            return false;
        };
        thread.is_busy = thread.jobs.try_send(job).is_ok();
        thread.is_busy
    }

    /// The next result, if any.
    pub(super) fn try_recv(&mut self) -> Option<Done> {
        let (at, done) = self.done.try_recv().ok()?;
        if let Some(thread) = self.threads.get_mut(at) {
            thread.is_busy = false;
        }
        Some(done)
    }

    fn start(&mut self) -> std::io::Result<()> {
        let client = Arc::new(PushClient::new(Arc::clone(&self.key), self.rules.clone()));
        for at in 0..PUSH_THREADS {
            let (jobs, jobs_in) = sync_channel(1);
            let (client, done) = (Arc::clone(&client), self.done_out.clone());
            let wake = Arc::clone(&self.wake);
            let thread = Builder::new().name("vestnik-push".to_owned()).stack_size(STACK_BYTES);
            thread.spawn(move || work(at, &jobs_in, &client, &done, &wake))?;
            self.threads.push(Thread { jobs, is_busy: false });
        }
        Ok(())
    }
}

fn work(
    at: usize,
    jobs: &Receiver<Job>,
    client: &PushClient,
    done: &Sender<(usize, Done)>,
    wake: &Wake,
) {
    for job in jobs {
        // Unwind safe: the client keeps no state between sends but idle connections, and it checks
        // those before it uses them.
        let sent = panic::catch_unwind(AssertUnwindSafe(|| client.send(&job)));
        let outcome = sent.unwrap_or_else(|_| {
            log::error!("a push panicked, which is a defect; it is tried again");
            Outcome::Failed { why: "the push panicked".to_owned(), is_unreachable: false }
        });
        if done.send((at, Done { id: job.id, outcome })).is_err() {
            return;
        }
        wake();
    }
}
