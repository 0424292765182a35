//! What an agent answers to a client that has the key and misbehaves.

use super::*;
use crate::agent::{channel::Kind, handshake::greet};

/// A client of an agent on loopback that says what a test wants it to.
struct Rude {
    stream: TcpStream,
    session: Session,
}

impl Rude {
    fn say(&mut self, message: &[u8]) {
        let sealed = self.session.seal(message);
        self.stream.write_all(&sealed).expect("it reads");
    }

    fn hear(&mut self) -> serde_json::Value {
        let frame = Frame::read(&mut Timed::new(&self.stream, ANSWER_MAX), BODY_BYTES_MAX).expect("an answer");
        let message = self.session.open(&frame).expect("the agent's own");
        serde_json::from_slice(&message).expect("JSON")
    }
}

/// What the agent's thread ended with, after `client` was done.
fn with_agent(client: impl FnOnce(Rude)) -> anyhow::Result<()> {
    let key = Key::new(b"a key of some length")?;
    let shared = Shared {
        options: AgentOptions {
            interface: "lo".to_owned(),
            force_interface: false,
            listen: (std::net::Ipv4Addr::LOCALHOST, 0).into(),
            key_file: PathBuf::new(),
            parent: None,
        },
        key: key.clone(),
        strangers_count: AtomicUsize::new(1),
        is_busy: AtomicBool::new(false),
    };
    let listener = TcpListener::bind(shared.options.listen)?;
    let addr = listener.local_addr()?;
    let attended = thread::scope(|scope| {
        let shared = &shared;
        let agent = scope.spawn(move || {
            let (stream, peer) = listener.accept()?;
            shared.attend(&stream, peer)
        });
        let mut stream = TcpStream::connect(addr)?;
        let session = greet(&mut stream, &key)?;
        client(Rude { stream, session });
        agent.join().expect("no panic")
    });
    assert_eq!(shared.strangers_count.load(Ordering::Acquire), 0);
    assert!(!shared.is_busy.load(Ordering::Acquire), "no place for the next client");
    attended
}

#[test]
fn requests_out_of_turn_and_out_of_bounds_are_refused_and_the_session_goes_on() {
    let hello = format!(r#"{{"ask":"hello","version":"{}"}}"#, environment::build::version());
    let start = r#"{"ask":"start","backend":"udp-blocking","client":"127.0.0.1:7001","client_mac":[0,0,0,0,0,0],
        "server_port":7000,"frame_bytes_max":64,"room_frames_count":64,
        "role":{"echo":{"service_spin":{"secs":0,"nanos":0},"times_turns":false}}}"#;
    let plain = start.replace(r#""ask":"start","#, "");
    let start_stamped = &*format!(r#"{{"ask":"start_stamped","stations":"Socket","start":{plain}}}"#);
    with_agent(|mut client| {
        for (message, why) in [
            (start, "say hello first"),
            (start_stamped, "say hello first"),
            (r#"{"ask":"hello","version":"0.0.0"}"#, "the same dplab"),
            (r#"{"ask":"pause","paused":true}"#, NO_SERVER),
            (r#"{"ask":"run_time"}"#, NO_SERVER),
            (r#"{"ask":"finish"}"#, NO_SERVER),
            (r#"{"ask":"finish","expected_count":18446744073709551615}"#, NO_SERVER),
            (r#"{"ask":"counters"}"#, NO_HELLO),
        ] {
            client.say(message.as_bytes());
            let answer = client.hear();
            assert_eq!(answer["answer"], "refused", "{message}");
            assert!(
                answer["why"].as_str().is_some_and(|said| said.contains(why)),
                "{message}: {answer}"
            );
        }
        client.say(hello.as_bytes());
        let answer = client.hear();
        assert_eq!(answer["interface"]["name"], "lo");
        assert!(answer["supports"]["shm"].is_null());
        assert_eq!(answer["supports"]["xdp-drop"]["is"], "absent", "over lo");
        client.say(br#"{"ask":"counters"}"#);
        let answer = client.hear();
        assert!(answer["counters"]["interface.rx_packets"].is_u64(), "{answer}");
        for out_of_bounds in [start, start_stamped] {
            client.say(out_of_bounds.as_bytes());
            assert!(
                client.hear()["why"]
                    .as_str()
                    .is_some_and(|said| said.contains("another machine"))
            );
        }
        client.say(br#"{"ask":"bye"}"#);
    })
    .expect("done in order");
}

#[test]
fn nonsense_and_size_end_the_session_with_a_word() {
    let error = with_agent(|mut client| {
        client.say(br#"{"ask":"run","program":"/bin/sh"}"#);
        assert!(
            client.hear()["why"]
                .as_str()
                .is_some_and(|why| why.contains("not understood"))
        );
    })
    .expect_err("nonsense");
    assert!(format!("{error:#}").contains("not understood"), "{error:#}");

    let error = with_agent(|mut client| {
        let mut header = (BODY_BYTES_MAX as u32 + 1).to_be_bytes().to_vec();
        header.push(5);
        client.stream.write_all(&header).expect("it reads");
        let told = Frame::read(&mut Timed::new(&client.stream, ANSWER_MAX), BODY_BYTES_MAX).expect("a refusal");
        assert_eq!(told.kind, Kind::Refusal);
    })
    .expect_err("too long");
    assert!(format!("{error:#}").contains("262145 bytes"), "{error:#}");

    let error = with_agent(drop).expect_err("gone");
    assert!(format!("{error:#}").contains("closed"), "{error:#}");
}
