//! The protocol alone: bytes to requests, answers to bytes.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use vestnik::limits::BODY_BYTES_MAX;
use vestnik::wire::Version;
use vestnik::wire::answer;
use vestnik::wire::codec::{Message, Put, put_message};
use vestnik::wire::extras::Extras;
use vestnik::wire::frame::{self, Frame, Parsed};
use vestnik::wire::purpose::{ToClient, ToServer};
use vestnik::wire::request::Request;

use crate::files::{CONTENT_BYTES, chat, message_time, user};
use vestnik::ids::MessageId;

/// Frames in the buffer that is parsed.
pub(crate) const FRAMES: usize = 500;

/// Frames that send messages.
pub(crate) fn sends() -> Vec<u8> {
    let content = "x".repeat(CONTENT_BYTES);
    let mut bytes = Vec::new();
    for task in 0..FRAMES {
        Request::SendChatMsg {
            chat: chat(7),
            content: &content,
            nonce: None,
            extras: Extras::NONE,
        }
        .write(&mut bytes, task as u8);
    }
    bytes
}

fn frames(bytes: &[u8], mut each: impl FnMut(&Frame<'_>)) -> usize {
    let mut used = 0;
    while let Parsed::Frame(frame) = frame::parse(&bytes[used..], BODY_BYTES_MAX) {
        used += frame.bytes();
        each(&frame);
    }
    used
}

/// Finds the frames.
pub(crate) fn parse_all(bytes: &[u8]) {
    let mut found = 0;
    let used = frames(black_box(bytes), |frame| found += frame.body.len().min(1));
    assert_eq!((used, found), (bytes.len(), FRAMES));
}

/// Finds the frames, and decodes the requests in them.
pub(crate) fn decode_all(bytes: &[u8]) {
    frames(black_box(bytes), |frame| {
        let purpose = ToServer::from_byte(frame.purpose).expect("in the table");
        let request = Request::decode(purpose, Version::V1_0, frame.body);
        assert!(matches!(black_box(&request), Ok(Request::SendChatMsg { .. })));
    });
}

pub(crate) fn parse_frames(criterion: &mut Criterion) {
    let bytes = sends();
    let mut group = criterion.benchmark_group("wire");
    group.throughput(Throughput::Elements(FRAMES as u64));
    group.bench_function("parse a frame", |bencher| {
        bencher.iter(|| parse_all(&bytes));
    });
    group.finish();
}

pub(crate) fn decode_requests(criterion: &mut Criterion) {
    let bytes = sends();
    let mut group = criterion.benchmark_group("wire");
    group.throughput(Throughput::Elements(FRAMES as u64));
    group.bench_function("parse and decode SEND_CHAT_MSG", |bencher| {
        bencher.iter(|| decode_all(&bytes));
    });
    group.finish();
}

pub(crate) fn write_answers(criterion: &mut Criterion) {
    let content = "x".repeat(CONTENT_BYTES);
    let created = message_time(0, 0, 1);
    let message = Message {
        id: MessageId::at(created),
        sender: user(1),
        created,
        updated: created,
        status: 0,
        content: &content,
        extras: Extras::NONE,
    };
    let mut out = Vec::new();
    let mut group = criterion.benchmark_group("wire");
    group.throughput(Throughput::Elements(1));
    group.bench_function("write the answer to a send", |bencher| {
        bencher.iter(|| {
            out.clear();
            answer::accepted(&mut out, 1, |body| {
                body.put_u64(message.id.get());
                body.put_time(created);
            });
            black_box(&out).len()
        });
    });
    group.bench_function("write a notification", |bencher| {
        bencher.iter(|| {
            out.clear();
            frame::write(&mut out, ToClient::MsgNotify.byte(), 1, |body| {
                body.put_u32(7);
                put_message(body, Version::V1_0, black_box(&message));
            });
            black_box(&out).len()
        });
    });
    group.finish();
}
