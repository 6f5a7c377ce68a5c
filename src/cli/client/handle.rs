//! The channels between controller and worker: jobs in one direction, news in the other.

use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError};
use std::time::Duration;

use super::job::{Job, News};
use super::waker::{WakeReceiver, Waker};
use super::worker::now;

/// Time limit for closing the connection.
const END_WAIT: Duration = Duration::from_secs(3);

/// The controller's end.
pub(super) struct Handle {
    pub(super) jobs: Sender<Job>,
    pub(super) waker: Waker,
    pub(super) news: Receiver<News>,
    /// Readable when there are news.
    pub(super) receiver: WakeReceiver,
}

impl Handle {
    /// Passes a job to the worker.
    pub(super) fn ask(&self, job: Job) {
        // A worker that has ended has sent its last news.
        let _ = self.jobs.send(job);
        self.waker.ring();
    }

    /// The news that have arrived.
    pub(super) fn news(&self) -> Vec<News> {
        self.receiver.hush();
        let mut all = Vec::new();
        loop {
            match self.news.try_recv() {
                Ok(news) => all.push(news),
                Err(TryRecvError::Empty) => return all,
                // Its last news were read before, or it died without any.
                Err(TryRecvError::Disconnected) => {
                    all.push(News::Ended(Err("the client's network thread is gone".to_owned())));
                    return all;
                }
            }
        }
    }

    /// Closes the connection, and waits for the end a while. Returns the news that came until then:
    /// what was being sent may have been sent.
    pub(super) fn end(&self, logoff: bool) -> Vec<News> {
        self.ask(Job::Quit { logoff });
        let deadline = now() + END_WAIT;
        let left = || deadline.saturating_duration_since(now());
        let mut all = Vec::new();
        while let Ok(news) = self.news.recv_timeout(left()) {
            if matches!(news, News::Ended(_)) {
                break;
            }
            all.push(news);
        }
        all
    }
}

/// The worker's end for news.
pub(super) struct Outlet {
    pub(super) news: SyncSender<News>,
    pub(super) waker: Waker,
}

impl Outlet {
    pub(super) fn report(&self, news: News) {
        // If the queue is full, the controller was woken already; if it has ended, there is
        // nobody to wake.
        let _ = self.news.send(news);
        self.waker.ring();
    }
}
