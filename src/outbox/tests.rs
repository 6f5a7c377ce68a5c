//! Tests of the queues: what is staged, released, discarded, sent, and what it is counted as.

use super::*;
use crate::metrics::Page;
use crate::wire::decline::{CODES, Decline};

fn staged(outbox: &mut Outbox, index: u32, bytes: &[u8]) {
    outbox.stage(index, |out| out.extend_from_slice(bytes));
}

#[test]
fn the_queue_of_an_idle_connection_is_small() {
    assert!(size_of::<Queue>() <= 48);
}

#[test]
fn staged_bytes_cannot_be_sent_before_their_release() {
    let mut outbox = Outbox::default();
    staged(&mut outbox, 3, b"abc");
    assert_eq!(outbox.sendable(3), b"");
    assert_eq!(outbox.pending_bytes(3), 3);
    outbox.release(&mut Metrics::default());
    assert_eq!(outbox.sendable(3), b"abc");
    assert_eq!(outbox.pop_dirty(), Some(Dirty { index: 3, is_notified_only: false }));
    assert_eq!(outbox.pop_dirty(), None);
    outbox.advance(3, 2);
    assert_eq!(outbox.sendable(3), b"c");
    assert_eq!(outbox.buffered_bytes(), 1);
}

#[test]
fn nothing_follows_the_final_lines() {
    let mut outbox = Outbox::default();
    let got = |outbox: &mut Outbox| {
        staged(outbox, 3, b"sent");
        outbox.broadcast_mut().extend_from_slice(b"alike");
        outbox.stage_broadcast(3, ToClient::MsgNotify, [0; BROADCAST_HEAD_BYTES], 0..5);
    };
    staged(&mut outbox, 3, b"bye");
    outbox.close(3);
    got(&mut outbox);
    assert_eq!(outbox.pending_bytes(3), 3);
    // An undone turn has staged no closing frames.
    outbox.discard();
    staged(&mut outbox, 3, b"bye");
    outbox.close(3);
    got(&mut outbox);
    outbox.release(&mut Metrics::default());
    assert_eq!(outbox.sendable(3), b"bye");
    // Released closing frames stay, even when later turns are undone.
    outbox.begin_turn();
    outbox.touch(3);
    outbox.discard();
    got(&mut outbox);
    assert_eq!(outbox.pending_bytes(3), 3);
    outbox.remove(3);
    staged(&mut outbox, 3, b"another");
    assert_eq!(outbox.pending_bytes(3), 7);
}

#[test]
fn frames_are_counted_when_they_are_released() {
    let (mut outbox, mut metrics) = (Outbox::default(), Metrics::default());
    let got = |metrics: &Metrics| {
        let mut page = Page::default();
        let purposes = [(0, "ACCEPTED"), (1, "DECLINED"), (0x20, "MSG_NOTIFY")];
        metrics.render(&mut page, [].into_iter(), purposes.into_iter(), CODES);
        page.into_text()
    };
    let count = |text: &str, name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
    };
    for is_undone in [true, false, false] {
        outbox.begin_turn();
        let head = [4, 0, 0, 0, 0x20, 9, 0, 0, 0, 0];
        outbox.stage_broadcast(0, ToClient::MsgNotify, head, 0..0);
        for task in 0..3 {
            outbox.stage_frame(0, ToClient::Accepted, task, |body| body.push(7));
        }
        outbox.decline(1, 1, Decline::BadName);
        if is_undone {
            outbox.discard();
        }
        outbox.release(&mut metrics);
        outbox.stage_frame(0, ToClient::Accepted, 7, |_| {});
        outbox.release(&mut metrics);
        while outbox.pop_dirty().is_some() {}
    }
    let text = got(&metrics);
    let sent = "vestnik_frames_sent_total";
    assert_eq!(count(&text, &format!("{sent}{{purpose=\"ACCEPTED\"}}")), Some(9));
    assert_eq!(count(&text, &format!("{sent}{{purpose=\"MSG_NOTIFY\"}}")), Some(2));
    assert_eq!(count(&text, &format!("{sent}{{purpose=\"DECLINED\"}}")), Some(2));
    assert_eq!(count(&text, &format!("{sent}{{purpose=\"unknown\"}}")), Some(0));
    assert_eq!(count(&text, "vestnik_declines_total{code=\"bad-name\"}"), Some(2));
}

#[test]
fn an_undone_turn_leaves_what_was_released_before() {
    let mut outbox = Outbox::default();
    staged(&mut outbox, 0, b"old");
    outbox.release(&mut Metrics::default());
    staged(&mut outbox, 0, b"new");
    outbox.discard();
    outbox.release(&mut Metrics::default());
    assert_eq!(outbox.sendable(0), b"old");
    assert_eq!(outbox.buffered_bytes(), 3);
}

#[test]
fn an_empty_queue_holds_no_buffer_and_idle_spares_go() {
    let mut outbox = Outbox::default();
    for index in 0..10 {
        staged(&mut outbox, index, b"x");
    }
    outbox.release(&mut Metrics::default());
    for index in 0..10 {
        outbox.advance(index, 1);
    }
    assert!(outbox.queues.iter().all(|queue| queue.bytes.capacity() == 0));
    assert_eq!(outbox.spares.len(), 10);
    outbox.trim();
    outbox.trim();
    assert_eq!(outbox.spares.len(), 0);
}

#[test]
fn slices_stand_where_they_were_staged() {
    let mut outbox = Outbox::default();
    staged(&mut outbox, 0, b"unsent");
    outbox.release(&mut Metrics::default());
    outbox.advance(0, 2);
    outbox.broadcast_mut().extend_from_slice(b"abcdef");
    let head = *b"0123456789";
    staged(&mut outbox, 0, b"<");
    outbox.stage_broadcast(0, ToClient::MsgNotify, head, 0..2);
    outbox.stage_broadcast(0, ToClient::MsgNotify, head, 2..3);
    staged(&mut outbox, 0, b">");
    outbox.stage_broadcast(1, ToClient::MsgNotify, head, 0..6);
    assert_eq!(outbox.pending_bytes(0), 4 + 1 + 12 + 11 + 1);
    assert_eq!(outbox.buffered_bytes(), 29 + 16);
    outbox.release(&mut Metrics::default());
    while outbox.pop_dirty().is_some() {}
    assert_eq!(outbox.sendable(0), b"sent<0123456789ab0123456789c>");
    assert_eq!(outbox.sendable(1), b"0123456789abcdef");
    assert_eq!((outbox.pending_bytes(0), outbox.buffered_bytes()), (29, 45));
    outbox.begin_turn();
    outbox.advance(0, 29);
    outbox.advance(1, 16);
    assert_eq!(outbox.buffered_bytes(), 0);
}

#[test]
fn buffers_are_used_again_and_again() {
    let mut outbox = Outbox::default();
    for _ in 0..100 {
        outbox.begin_turn();
        outbox.broadcast_mut().extend_from_slice(&[5; 100]);
        for index in 0..10 {
            outbox.stage_broadcast(index, ToClient::MsgNotify, [0; BROADCAST_HEAD_BYTES], 0..100);
            staged(&mut outbox, index, b"own");
        }
        outbox.release(&mut Metrics::default());
        while let Some(Dirty { index, .. }) = outbox.pop_dirty() {
            outbox.advance(index, outbox.pending_bytes(index));
        }
    }
    assert!(outbox.spares.len() <= 11, "{} spares", outbox.spares.len());
}

#[test]
fn a_long_queue_takes_slices_without_moving() {
    let mut outbox = Outbox::default();
    let long = vec![1; 3 * SPARE_BYTES_MAX];
    let mut expected = long.clone();
    staged(&mut outbox, 0, &long);
    outbox.release(&mut Metrics::default());
    outbox.advance(0, 5);
    for round in 0..3 {
        outbox.begin_turn();
        outbox.broadcast_mut().extend_from_slice(&[8, 9]);
        staged(&mut outbox, 0, &[7]);
        outbox.stage_broadcast(0, ToClient::MsgNotify, [round; BROADCAST_HEAD_BYTES], 0..2);
        staged(&mut outbox, 0, &[6]);
        outbox.release(&mut Metrics::default());
        while outbox.pop_dirty().is_some() {}
        expected.push(7);
        expected.extend_from_slice(&[round; BROADCAST_HEAD_BYTES]);
        expected.extend_from_slice(&[8, 9, 6]);
        assert_eq!(outbox.sendable(0), &expected[5..]);
        assert_eq!(outbox.buffered_bytes(), expected.len() - 5);
    }
}

#[test]
fn sending_meanwhile_moves_no_slice() {
    let mut outbox = Outbox::default();
    staged(&mut outbox, 0, b"old");
    outbox.release(&mut Metrics::default());
    outbox.begin_turn();
    outbox.broadcast_mut().extend_from_slice(b"xy");
    outbox.stage_broadcast(0, ToClient::MsgNotify, [7; BROADCAST_HEAD_BYTES], 0..2);
    outbox.advance(0, 3);
    staged(&mut outbox, 0, b"new");
    outbox.release(&mut Metrics::default());
    while outbox.pop_dirty().is_some() {}
    assert_eq!(outbox.sendable(0), b"\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07xynew");
}

#[test]
fn a_held_queue_is_sent_slices_of_several_turns() {
    let mut outbox = Outbox::default();
    let head = *b"0123456789";
    for (turn, is_undone) in [(b"ab", false), (b"cd", true), (b"ef", false)] {
        outbox.begin_turn();
        let from = outbox.broadcast().len();
        outbox.broadcast_mut().extend_from_slice(turn);
        outbox.stage_broadcast(0, ToClient::MsgNotify, head, from..from + 2);
        outbox.stage_broadcast(1, ToClient::MsgNotify, head, from..from + 1);
        staged(&mut outbox, 1, turn);
        if is_undone {
            outbox.discard();
        }
        outbox.release(&mut Metrics::default());
        while outbox.take_dirty().is_some() {}
    }
    assert_eq!((outbox.pending_bytes(0), outbox.pending_bytes(1)), (24, 26));
    assert_eq!(outbox.buffered_bytes(), 50);
    outbox.flatten(0);
    assert_eq!(outbox.sendable(0), b"0123456789ab0123456789ef");
    outbox.begin_turn();
    assert_eq!(outbox.broadcast(), b"abef");
    outbox.flatten(1);
    assert_eq!(outbox.sendable(1), b"0123456789aab0123456789eef");
    outbox.begin_turn();
    assert_eq!(outbox.broadcast(), b"");
    outbox.remove(0);
    outbox.remove(1);
    assert_eq!(outbox.buffered_bytes(), 0);
}

#[test]
fn a_removed_queue_releases_the_broadcast_buffer() {
    let mut outbox = Outbox::default();
    outbox.broadcast_mut().extend_from_slice(b"xyz");
    outbox.stage_broadcast(3, ToClient::MsgNotify, [0; BROADCAST_HEAD_BYTES], 0..3);
    outbox.release(&mut Metrics::default());
    while outbox.take_dirty().is_some() {}
    outbox.remove(3);
    outbox.begin_turn();
    assert_eq!((outbox.broadcast(), outbox.buffered_bytes()), (&b""[..], 0));
}

#[test]
fn an_undone_turn_forgets_its_slices() {
    let mut outbox = Outbox::default();
    outbox.broadcast_mut().push(7);
    outbox.stage_broadcast(5, ToClient::MsgNotify, [0; BROADCAST_HEAD_BYTES], 0..1);
    outbox.discard();
    outbox.release(&mut Metrics::default());
    while outbox.pop_dirty().is_some() {}
    assert_eq!(outbox.sendable(5), b"");
    assert_eq!((outbox.pending_bytes(5), outbox.buffered_bytes()), (0, 0));
}

#[test]
fn a_long_queue_forgets_what_was_sent() {
    let mut outbox = Outbox::default();
    let range = vec![7; COMPACT_BYTES];
    for _ in 0..100 {
        staged(&mut outbox, 0, &range);
        staged(&mut outbox, 0, &range[..1]);
        outbox.release(&mut Metrics::default());
        outbox.advance(0, COMPACT_BYTES);
    }
    assert_eq!(outbox.pending_bytes(0), 100);
    assert!(outbox.queues[0].bytes.capacity() <= 4 * COMPACT_BYTES);
}
