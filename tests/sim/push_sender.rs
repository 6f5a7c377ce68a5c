//! The simulated threads that send pushes, and the answers of push services.

use std::collections::VecDeque;

use vestnik::push::{Done, Job, Outcome};

use crate::rng::Rng;

/// Pushes that the service has handed over.
#[derive(Default)]
pub(crate) struct PushSender {
    /// Not yet compared with the model.
    pub(crate) taken: Vec<Job>,
    done: VecDeque<(String, Done)>,
}

impl PushSender {
    /// Sends a push: the outcome comes back later.
    pub(crate) fn send(&mut self, job: Job, rng: &mut Rng) {
        let outcome = match rng.below(16) {
            0..2 => Outcome::Gone { status: 410 },
            2..4 => {
                let retry_after_s = Some(rng.below(100)).filter(|_| rng.one_in(2));
                Outcome::Declined { status: 429, retry_after_s, excerpt: "later".to_owned() }
            }
            4..6 => Outcome::Failed { why: "no answer".to_owned(), is_unreachable: rng.one_in(2) },
            6 => Outcome::Impossible("no key".to_owned()),
            _ => Outcome::Delivered { status: 201 },
        };
        self.done.push_back((job.endpoint, Done { id: job.id, outcome }));
    }

    /// The next outcome, with its endpoint.
    pub(crate) fn next_done(&mut self, rng: &mut Rng) -> Option<(String, Done)> {
        if rng.one_in(3) { None } else { self.done.pop_front() }
    }
}
