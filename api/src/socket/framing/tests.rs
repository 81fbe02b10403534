use tungstenite::protocol::frame::Frame as WireFrame;
use tungstenite::protocol::frame::coding::Control;

use super::*;

/// A client's frame: masked (RFC 6455 §5.3).
fn masked(opcode: OpCode, payload: &[u8], last: bool) -> Vec<u8> {
    let header = FrameHeader { opcode, is_final: last, mask: Some([1, 2, 3, 4]), ..FrameHeader::default() };
    let mut bytes = Vec::new();
    WireFrame::from_payload(header, Bytes::copy_from_slice(payload)).format(&mut bytes).unwrap();
    bytes
}

fn text(payload: &[u8], last: bool) -> Vec<u8> {
    masked(OpCode::Data(Data::Text), payload, last)
}

fn all(framing: &mut Framing, bytes: &[u8]) -> Result<Vec<Got>, Fault> {
    let mut input = BytesMut::from(bytes);
    let mut got = Vec::new();
    while let Some(next) = framing.next(&mut input)? {
        let end = next == Got::Close;
        got.push(next);
        if end {
            break;
        }
    }
    Ok(got)
}

fn said(text: &'static str) -> Got {
    Got::Frame(Frame::Text(Utf8Bytes::from_static(text)))
}

#[test]
fn messages_come_whole_however_their_bytes_are_cut() {
    let mut bytes = text("hé".as_bytes(), false);
    bytes.extend(masked(OpCode::Control(Control::Ping), b"?", true));
    bytes.extend(masked(OpCode::Data(Data::Continue), b"llo", true));
    bytes.extend(masked(OpCode::Data(Data::Binary), &[0xff], true));
    let expected = vec![Got::Sign, said("héllo"), Got::Frame(Frame::Binary(Bytes::from_static(&[0xff])))];
    assert_eq!(all(&mut Framing::new(100), &bytes), Ok(expected.clone()));
    let mut framing = Framing::new(100);
    let mut got = Vec::new();
    for byte in &bytes {
        got.extend(all(&mut framing, &[*byte]).unwrap());
    }
    assert_eq!(got, expected);
    assert_eq!(framing.out()[..], [0x8a, 1, b'?'], "the ping is answered");
}

#[test]
fn a_message_at_the_limit_comes_and_one_past_it_fails() {
    let whole = |size: usize| text(&vec![b'x'; size], true);
    let parts = |size: usize| {
        let mut bytes = text(&vec![b'x'; size - 1], false);
        bytes.extend(masked(OpCode::Data(Data::Continue), b"x", true));
        bytes
    };
    for size in [125, 126, 65_535, 65_536] {
        assert_eq!(all(&mut Framing::new(size), &whole(size)).unwrap().len(), 1);
        assert_eq!(all(&mut Framing::new(size), &parts(size)).unwrap().len(), 1);
        for bytes in [whole(size + 1), parts(size + 1)] {
            assert_eq!(all(&mut Framing::new(size), &bytes).unwrap_err().code, 1009);
        }
    }
}

#[test]
fn what_the_rfc_forbids_fails_the_connection() {
    let unmasked = vec![0x81, 1, b'x'];
    let reserved_bit = vec![0xc1, 0x80, 0, 0, 0, 0];
    let reserved_opcode = masked(OpCode::Data(Data::Reserved(3)), b"", true);
    let cut_ping = masked(OpCode::Control(Control::Ping), b"", false);
    let large_ping = masked(OpCode::Control(Control::Ping), &[0; 126], true);
    let lone_rest = masked(OpCode::Data(Data::Continue), b"", true);
    for (bytes, code) in [
        (unmasked, 1002),
        (reserved_bit, 1002),
        (reserved_opcode, 1002),
        (cut_ping, 1002),
        (large_ping, 1002),
        (lone_rest, 1002),
        (text(&[0xff], true), 1007),
        (text(&[0xff], false), 1007),
    ] {
        let mut framing = Framing::new(1000);
        let fault = all(&mut framing, &bytes).unwrap_err();
        assert_eq!(fault.code, code, "{bytes:?}");
        framing.close(fault.code, fault.why);
        assert_eq!(framing.out()[0], 0x88, "and the peer is told: {bytes:?}");
    }
}

#[test]
fn a_close_is_answered_and_nothing_is_written_after_it() {
    let mut framing = Framing::new(100);
    let close = masked(OpCode::Control(Control::Close), &1000_u16.to_be_bytes(), true);
    assert_eq!(all(&mut framing, &close), Ok(vec![Got::Close]));
    assert_eq!(framing.out()[..], [0x88, 2, 0x03, 0xe8]);
    framing.text(b"late");
    framing.ping();
    framing.close(1001, "again");
    assert_eq!(framing.out().len(), 4);

    let mut framing = Framing::new(100);
    framing.text(b"before");
    framing.close(1001, "bye");
    framing.binary(b"late");
    assert_eq!(framing.out()[..8], *b"\x81\x06before");
    assert_eq!(framing.out()[8..], *b"\x88\x05\x03\xe9bye");
}

#[test]
fn lengths_are_written_in_their_shortest_form() {
    for (size, header) in [
        (125, vec![0x82, 125]),
        (126, vec![0x82, 126, 0, 126]),
        (65_536, vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
    ] {
        let mut framing = Framing::new(100);
        framing.binary(&vec![7; size]);
        assert_eq!(framing.out()[..header.len()], header[..]);
        assert_eq!(framing.out().len(), header.len() + size);
    }
}

#[test]
fn the_corpus_of_frames_is_replayed_and_so_are_its_neighbours() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/websocket");
    let mut count = 0;
    for file in std::fs::read_dir(dir).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        fuzz(&bytes);
        // Every bit of the first bytes, every end, some ways to cut.
        for at in 0..bytes.len().min(24) * 8 {
            let mut changed = bytes.clone();
            changed[at / 8] ^= 1 << (at % 8);
            fuzz(&changed);
        }
        for end in 0..bytes.len() {
            fuzz(&bytes[..end]);
        }
        count += 1;
    }
    assert!(count >= 10, "the corpus is there");
}
