//! `vestnik push`: a push by hand, and what the push service says of it.

use std::sync::Arc;

use clap::Subcommand;
use vestnik::config::{Config, PushOptions, WebOrigin};
use vestnik::net::push_client::{PushClient, PushRules};
use vestnik::push::vapid::VapidKey;
use vestnik::push::{Job, Outcome as Sent, Urgency};
use vestnik::service::push::endpoint_host;
use vestnik::service::push_text::test_text;
use vestnik::store::subscriptions::Subscription;

use super::failure::Failure;
use super::output::{self, Cell, Format};
use super::{Context, Outcome, file};

/// Seconds for which the push service keeps the push for a browser that is away.
const TTL_S: u32 = 3600;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Send one push to each subscription of a user, and show what the push services answer
    Test {
        /// The user
        user: String,
        #[command(flatten)]
        options: Box<PushOptions>,
        #[command(flatten)]
        format: Format,
    },
}

pub(super) fn run(command: Command, context: &mut Context<'_>) -> Outcome {
    match command {
        Command::Test { user, options, format } => test(&user, *options, format, context),
    }
}

fn test(name: &str, options: PushOptions, format: Format, context: &mut Context<'_>) -> Outcome {
    let config = Config::new(options.0.or(context.options.clone()))?;
    let (stored, subscriptions) = file::look(&context.data, |store| {
        let user = file::user(store, name)?;
        Ok((store.push_key()?, store.subscriptions_of(user.user)?))
    })?;
    let Some(stored) = stored else {
        let words = "the server has no key for pushes yet: start it with --push on";
        return Err(Failure::new(words));
    };
    if subscriptions.is_empty() {
        return Err(Failure::Failed(format!(
            "{} has no subscription: it is made in the settings of the browser client",
            file::quoted(name)
        )));
    }
    let key = Arc::new(VapidKey::from_stored(&stored).map_err(Failure::new)?);
    let client = PushClient::new(key, PushRules::new(&config));
    let site = config.public_url.as_ref().map(WebOrigin::as_str);
    let mut delivered = false;
    let mut rows = Vec::new();
    for subscription in &subscriptions {
        let sent = client.send(&job(subscription, site));
        delivered |= matches!(sent, Sent::Delivered { .. });
        rows.push(row(subscription, sent));
    }
    output::list(context.out, format, ["SESSION", "HOST", "STATUS", "ANSWER"], &rows)?;
    if delivered {
        return Ok(());
    }
    Err(Failure::new("no push service accepted the push"))
}

fn job(subscription: &Subscription, site: Option<&str>) -> Job {
    Job {
        id: 0,
        endpoint: subscription.endpoint.clone(),
        p256dh: subscription.p256dh.clone(),
        auth: subscription.auth.clone(),
        text: test_text(site),
        ttl_s: TTL_S,
        urgency: Urgency::High,
        topic: "test".to_owned(),
        now_s: file::now().micros().unsigned_abs() / 1_000_000,
    }
}

fn row(subscription: &Subscription, sent: Sent) -> [Cell; 4] {
    let (status, answer) = match sent {
        Sent::Delivered { status } => (status, "delivered".to_owned()),
        Sent::Gone { status } => (status, "the subscription is over".to_owned()),
        Sent::Declined { status, excerpt, .. } if excerpt.is_empty() => {
            (status, "declined".to_owned())
        }
        Sent::Declined { status, excerpt, .. } => (status, format!("declined: {excerpt}")),
        Sent::Failed { why, .. } | Sent::Impossible(why) => (0, why),
    };
    [
        Cell::from(subscription.session.get()),
        Cell::from(endpoint_host(&subscription.endpoint)),
        Cell::from(u32::from(status)),
        Cell::from(answer),
    ]
}
