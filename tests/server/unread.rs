//! Unread counts: `last_message` and `unread` of chat_info after any history (protocol section 5).

use std::time::Duration;

use crate::support::Server;
use crate::support::wire::*;

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) as usize % bound
    }
}

/// What one knows who has seen everything.
#[derive(Default)]
struct Model {
    /// Time and sender of each message that is not deleted.
    messages: Vec<(i64, usize)>,
    last: i64,
    seen: [i64; 3],
}

impl Model {
    fn expected(&self, user: usize) -> (i64, i64, u32) {
        let is_unread = |&&(time, sender): &&(i64, usize)| time > self.seen[user] && sender != user;
        let unread = self.messages.iter().filter(is_unread).count();
        (self.last, self.seen[user], unread.min(1000) as u32)
    }
}

/// Sends, markers and deletions in any order: what is notified of a chat is what a count gives,
/// over and under the thousand up to which it goes, for who sends most and for who only reads.
#[test]
fn unread_is_what_a_count_gives() {
    let mut server = Server::start();
    let mut users = server.users10(["anna", "boris", "clara"]);
    let hall = users[0].0.create_chat("hall");
    users[1].0.join(hall);
    users[2].0.join(hall);
    let mut model = Model::default();
    let mut dice = Dice(7);
    for round in 0..60 {
        let user = [0, 0, 0, 1, 1, 2][dice.below(6)];
        let sender = &mut users[user].0;
        let count =
            sender
                .post_all((0..dice.below(200)).map(|n| {
                    (SEND_CHAT_MSG, body().id(hall).text(&format!("message {n}")).into())
                }));
        for _ in 0..count {
            let sent = Sent::read(&sender.answer().accepted());
            model.messages.push((sent.created, user));
            model.last = sent.created;
        }
        for _ in 0..dice.below(30).min(model.messages.len()) {
            let (time, author) = model.messages.remove(dice.below(model.messages.len()));
            users[author].0.delete(hall, time as u64);
        }
        if dice.below(3) == 0 && !model.messages.is_empty() {
            let reader = dice.below(3);
            let (time, _) = model.messages[dice.below(model.messages.len())];
            users[reader].0.ask(MARK_SEEN, body().id(hall).time(time)).accepted_empty();
            model.seen[reader] = model.seen[reader].max(time);
        }
        if round % 20 == 10 {
            // What the server does by itself between requests must not be seen.
            std::thread::sleep(Duration::from_millis(600));
        }
        if round % 12 == 7 {
            // Nor what it knows from before its end, gracefully or not.
            if round % 24 == 7 {
                server.kill();
            } else {
                server.stop_by("TERM");
            }
            server.restart();
            for ((client, _), name) in users.iter_mut().zip(["anna", "boris", "clara"]) {
                *client = server.login10(name);
            }
        }
        for (user, (client, _)) in users.iter_mut().enumerate() {
            let got = client.chat(hall);
            let (last, seen, unread) = (got.last_message, got.seen, got.unread);
            assert_eq!((last, seen, unread), model.expected(user), "{user} in {round}");
            assert_eq!(client.my_chats(), [got]);
        }
    }
    server.admin_ok(&["check"], None);
    assert!(model.messages.len() > 2500, "{}", model.messages.len());
}
