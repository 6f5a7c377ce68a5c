//! All transfers in progress, in round robin: one request each, with progress reports.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use purpose::client::{Client, Error, File};

use super::handle::Outlet;
use super::job::{Job, News, Progress};
use super::pause::pause_after;
use super::perform::Surroundings;
use super::report;
use super::text::harmless;
use super::transfer::{Download, Failed, Step, Upload};
use super::worker::{Stop, now};

/// Interval of progress reports.
const REPORT_PAUSE: Duration = Duration::from_millis(200);

enum Transfer {
    Upload(Upload),
    Download(Download),
}

/// The transfers in progress.
#[derive(Default)]
pub(super) struct Transfers {
    running: VecDeque<Transfer>,
    /// Messages whose files are uploaded, ready to be sent.
    pub(super) uploaded: Vec<Job>,
    /// The time until which all transfers are paused.
    pub(super) paused: Option<Instant>,
    reported: Option<Instant>,
    downloads: u64,
}

impl Transfer {
    fn progress(&self) -> Option<Progress> {
        let (key, name, is_upload, done, size) = match self {
            Self::Upload(upload) => (upload.nonce, &upload.name, true, upload.offset, upload.size),
            Self::Download(download) => {
                let file = download.file()?;
                (download.key, &file.name, false, download.offset, file.size)
            }
        };
        Some(Progress { key, name: harmless(name), is_upload, done, size })
    }

    fn key(&self) -> u64 {
        match self {
            Self::Upload(upload) => upload.nonce,
            Self::Download(download) => download.key,
        }
    }
}

impl Transfers {
    /// Begins the transfer of a job.
    pub(super) fn begin(
        &mut self,
        job: &Job,
        surroundings: &Surroundings,
        size_max: u64,
        news: &Outlet,
    ) {
        let transfer = match job {
            Job::Upload { chat, nonce, path, content } => {
                match Upload::open((*chat, *nonce), path, content, size_max) {
                    Ok(upload) => Transfer::Upload(upload),
                    Err(why) => {
                        news.report(News::NotSent { nonce: *nonce, why });
                        news.report(News::TransferEnded(*nonce));
                        return;
                    }
                }
            }
            Job::Save(files) => {
                self.downloads += 1;
                // Counted down from the maximum, since the nonces of uploads are random.
                let key = u64::MAX - self.downloads;
                Transfer::Download(Download::new(key, &surroundings.folder, files.clone()))
            }
            _ => return,
        };
        transfer.progress().into_iter().for_each(|progress| news.report(News::Progress(progress)));
        self.running.push_back(transfer);
    }

    /// Makes one request of the next transfer; returns whether there was one. After an error that
    /// breaks the connection it is repeated on the next connection.
    pub(super) fn step(&mut self, client: &mut Client, news: &Outlet) -> Result<bool, Stop> {
        let begun = now();
        if self.paused.is_some_and(|until| begun < until) {
            return Ok(false);
        }
        self.paused = None;
        let Some(mut transfer) = self.running.pop_front() else { return Ok(false) };
        let step = match &mut transfer {
            Transfer::Upload(upload) => upload.step(client),
            Transfer::Download(download) => download.step(client),
        };
        match step {
            Ok(Step::More) => {
                self.report(&transfer, begun, news);
                self.running.push_back(transfer);
            }
            Ok(Step::Saved(file, path)) => {
                news.report(News::Lines(vec![saved(&file, &path.display().to_string())]));
                self.running.push_front(transfer);
            }
            Ok(Step::Uploaded(file)) => self.send(transfer, file, news),
            Ok(Step::Done) => news.report(News::TransferEnded(transfer.key())),
            Err(Failed::Server(error)) if error.is_broken() => {
                self.running.push_front(transfer);
                return Err(error.into());
            }
            Err(failed) => self.failed(transfer, failed, client, news),
        }
        Ok(true)
    }

    fn report(&mut self, transfer: &Transfer, now: Instant, news: &Outlet) {
        if self.reported.is_some_and(|reported| now < reported + REPORT_PAUSE) {
            return;
        }
        self.reported = Some(now);
        transfer.progress().into_iter().for_each(|progress| news.report(News::Progress(progress)));
    }

    fn send(&mut self, transfer: Transfer, file: File, news: &Outlet) {
        news.report(News::TransferEnded(transfer.key()));
        let Transfer::Upload(Upload { chat, nonce, content, .. }) = transfer else { return };
        self.uploaded.push(Job::Send { chat, nonce, content, reply: None, files: vec![file] });
    }

    fn failed(&mut self, transfer: Transfer, failed: Failed, client: &mut Client, news: &Outlet) {
        let why = match failed {
            Failed::Here(why) => why,
            Failed::Server(Error::Declined(why)) => {
                if let Some(pause) = pause_after(why.code(), why.number()) {
                    self.paused = Some(now() + pause);
                    self.running.push_front(transfer);
                    return;
                }
                report::reason(why.words())
            }
            Failed::Server(error) => report::reason(&error.to_string()),
        };
        match &transfer {
            Transfer::Upload(upload) => {
                upload.end(client);
                news.report(News::NotSent { nonce: upload.nonce, why });
            }
            Transfer::Download(_) => news.report(News::Failed(why)),
        }
        news.report(News::TransferEnded(transfer.key()));
    }

    /// Cancels all transfers.
    pub(super) fn cancel(&mut self, client: &mut Client, news: &Outlet) {
        for transfer in std::mem::take(&mut self.running) {
            let why = "it was cancelled".to_owned();
            self.failed(transfer, Failed::Here(why), client, news);
        }
        self.paused = None;
    }
}

/// The line for a saved file, with its path if its name was changed.
fn saved(file: &File, path: &str) -> String {
    format!("saved {}, {}", harmless(path), report::size(file.size))
}
