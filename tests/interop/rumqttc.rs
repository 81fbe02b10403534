//! Scripted talks of rumqttc: MQTT 3.1.1 and 5, over TCP and WebSocket. It has no 3.1.

use std::time::Duration;

use crate::broker::Broker;

/// A step that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(15);

/// What a message looks like in every version.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Message {
    topic: String,
    payload: String,
    qos: u8,
    retain: bool,
}

/// The same talks for both versions: rumqttc has two families of types with the same names.
macro_rules! talks {
    ($module:ident, $version:literal, [$($root:tt)+], [$($packets:tt)+], [$($qos:tt)+], $will:expr, $session:expr) => {
        mod $module {
            use std::time::Duration;

            use $($packets)+ as packets;
            use $($qos)+ as QoS;
            use $($root)+::{AsyncClient, Event, EventLoop, MqttOptions};
            use rumqttc::Transport;
            use packets::Packet;

            use super::{Message, PATIENCE};
            use crate::broker::Broker;

            struct Peer {
                client: AsyncClient,
                events: EventLoop,
                session_present: bool,
            }

            struct Talk<'a> {
                broker: &'a Broker,
                web: bool,
                name: &'static str,
            }

            impl Talk<'_> {
                fn topic(&self, rest: &str) -> String {
                    let over = if self.web { "ws" } else { "tcp" };
                    format!("interop/rumqttc/{}/{over}/{}/{rest}", $version, self.name)
                }

                async fn peer(&self, id: &str) -> Peer {
                    self.peer_with(id, |_| {}).await
                }

                async fn peer_with(&self, id: &str, set: impl FnOnce(&mut MqttOptions)) -> Peer {
                    let over = if self.web { "w" } else { "t" };
                    let id = format!("r{}{over}{}{id}", $version.replace('.', ""), self.name);
                    let mut options = if self.web {
                        let mut options =
                            MqttOptions::new(id, format!("ws://{}/mqtt", self.broker.http), self.broker.http.port());
                        options.set_transport(Transport::Ws);
                        options
                    } else {
                        MqttOptions::new(id, self.broker.mqtt.ip().to_string(), self.broker.mqtt.port())
                    };
                    options.set_credentials("alice", "alice").set_keep_alive(Duration::from_secs(30));
                    set(&mut options);
                    let (client, events) = AsyncClient::new(options, 64);
                    let mut peer = Peer { client, events, session_present: false };
                    peer.session_present = peer
                        .until("CONNACK", |packet| match packet {
                            Packet::ConnAck(ack) => Some(ack.session_present),
                            _ => None,
                        })
                        .await;
                    peer
                }
            }

            impl Peer {
                async fn until<T>(&mut self, what: &str, wanted: impl Fn(&Packet) -> Option<T>) -> T {
                    let found = async {
                        loop {
                            let event = self.events.poll().await.unwrap_or_else(|error| panic!("{what}: {error}"));
                            if let Event::Incoming(packet) = event
                                && let Some(found) = wanted(&packet)
                            {
                                return found;
                            }
                        }
                    };
                    tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("no {what} in time"))
                }

                async fn subscribe(&mut self, filter: &str, qos: QoS) {
                    self.client.subscribe(filter, qos).await.expect("room for a request");
                    self.until("SUBACK", |packet| matches!(packet, Packet::SubAck(_)).then_some(())).await;
                }

                async fn publish(&mut self, topic: &str, payload: &str, qos: QoS, retain: bool) {
                    self.client.publish(topic, qos, retain, payload.to_owned()).await.expect("room for a request");
                    match qos {
                        // On its way once the next packet is answered; nothing else says so.
                        QoS::AtMostOnce => {
                            let sent = async {
                                while !matches!(
                                    self.events.poll().await,
                                    Ok(Event::Outgoing(rumqttc::Outgoing::Publish(_)))
                                ) {}
                            };
                            tokio::time::timeout(PATIENCE, sent).await.expect("a publish is sent in time");
                        }
                        QoS::AtLeastOnce => {
                            self.until("PUBACK", |p| matches!(p, Packet::PubAck(_)).then_some(())).await;
                        }
                        QoS::ExactlyOnce => {
                            self.until("PUBCOMP", |p| matches!(p, Packet::PubComp(_)).then_some(())).await;
                        }
                    }
                }

                async fn message(&mut self) -> Message {
                    self.until("message", |packet| match packet {
                        Packet::Publish(publish) => Some(Message {
                            topic: String::from_utf8_lossy(publish.topic.as_ref()).into_owned(),
                            payload: String::from_utf8_lossy(&publish.payload).into_owned(),
                            qos: publish.qos as u8,
                            retain: publish.retain,
                        }),
                        _ => None,
                    })
                    .await
                }

                async fn expect(&mut self, payloads: &[&str]) {
                    for wanted in payloads {
                        assert_eq!(self.message().await.payload, *wanted);
                    }
                }

                /// DISCONNECT, and wait until the connection is closed.
                async fn leave(mut self) {
                    self.client.disconnect().await.expect("room for a request");
                    let closed = async { while self.events.poll().await.is_ok() {} };
                    tokio::time::timeout(PATIENCE, closed).await.expect("the connection ends in time");
                }
            }

            const ALL: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

            async fn every_qos_both_ways(talk: &Talk<'_>) {
                let (mut sub, mut publisher) = (talk.peer("s").await, talk.peer("p").await);
                for granted in ALL {
                    let topic = talk.topic(&format!("{}", granted as u8));
                    sub.subscribe(&topic, granted).await;
                    for sent in ALL {
                        let payload = format!("{} é", sent as u8);
                        publisher.publish(&topic, &payload, sent, false).await;
                        let qos = (sent as u8).min(granted as u8);
                        let wanted = Message { topic: topic.clone(), payload, qos, retain: false };
                        assert_eq!(sub.message().await, wanted);
                    }
                }
            }

            async fn retained(talk: &Talk<'_>) {
                let (mut publisher, topic) = (talk.peer("p").await, talk.topic("x"));
                publisher.publish(&topic, "old", QoS::AtLeastOnce, true).await;
                publisher.publish(&topic, "kept", QoS::AtLeastOnce, true).await;
                let mut first = talk.peer("a").await;
                first.subscribe(&topic, QoS::AtLeastOnce).await;
                let got = first.message().await;
                assert_eq!((got.payload.as_str(), got.retain), ("kept", true));
                publisher.publish(&topic, "", QoS::AtLeastOnce, true).await;
                first.expect(&[""]).await;
                let mut second = talk.peer("b").await;
                second.subscribe(&topic, QoS::AtLeastOnce).await;
                publisher.publish(&topic, "live", QoS::AtLeastOnce, false).await;
                let got = second.message().await;
                assert_eq!((got.payload.as_str(), got.retain), ("live", false));
            }

            async fn will(talk: &Talk<'_>) {
                let (mut sub, topic) = (talk.peer("s").await, talk.topic("x"));
                sub.subscribe(&topic, QoS::AtLeastOnce).await;
                let will = $will;
                let polite = talk
                    .peer_with("polite", |options| {
                        options.set_last_will(will(&topic, "never"));
                    })
                    .await;
                polite.leave().await;
                let cut = talk
                    .peer_with("cut", |options| {
                        options.set_last_will(will(&topic, "cut off"));
                    })
                    .await;
                // Its socket closes with it; no DISCONNECT.
                drop(cut);
                sub.expect(&["cut off"]).await;
            }

            async fn session_resume(talk: &Talk<'_>) {
                let topic = talk.topic("x");
                let mut sub = talk.peer_with("keep", $session).await;
                assert!(!sub.session_present, "a session that nobody had");
                sub.subscribe(&topic, QoS::AtLeastOnce).await;
                sub.leave().await;
                let mut publisher = talk.peer("p").await;
                let wanted: Vec<String> = (0..10).map(|n| format!("offline {n}")).collect();
                for payload in &wanted {
                    publisher.publish(&topic, payload, QoS::AtLeastOnce, false).await;
                }
                let mut sub = talk.peer_with("keep", $session).await;
                assert!(sub.session_present, "the session is not there any more");
                sub.expect(&wanted.iter().map(String::as_str).collect::<Vec<_>>()).await;
                publisher.publish(&topic, "live", QoS::ExactlyOnce, false).await;
                sub.expect(&["live"]).await;
            }

            /// What was acknowledged and what a session is owed are still there after `kill -9`.
            pub(super) async fn across_a_kill(broker: &mut Broker) {
                let topic = format!("interop/rumqttc/{}/kill", $version);
                let mut talk = Talk { broker, web: false, name: "kill" };
                let mut sub = talk.peer_with("keep", $session).await;
                sub.subscribe(&topic, QoS::AtLeastOnce).await;
                sub.leave().await;
                let mut publisher = talk.peer("p").await;
                let wanted: Vec<String> = (0..10).map(|n| format!("before {n}")).collect();
                for payload in &wanted {
                    publisher.publish(&topic, payload, QoS::ExactlyOnce, false).await;
                }
                publisher.publish(&format!("{topic}/retained"), "kept", QoS::AtLeastOnce, true).await;
                drop(publisher);
                broker.kill_and_start_again();
                talk = Talk { broker, web: false, name: "kill" };
                let mut sub = talk.peer_with("keep", $session).await;
                assert!(sub.session_present, "the session is not there any more");
                sub.expect(&wanted.iter().map(String::as_str).collect::<Vec<_>>()).await;
                sub.subscribe(&format!("{topic}/retained"), QoS::AtLeastOnce).await;
                sub.expect(&["kept"]).await;
                let mut publisher = talk.peer("p").await;
                publisher.publish(&topic, "after", QoS::AtLeastOnce, false).await;
                sub.expect(&["after"]).await;
            }

            pub(super) async fn all(broker: &Broker) {
                for web in [false, true] {
                    every_qos_both_ways(&Talk { broker, web, name: "qos" }).await;
                    retained(&Talk { broker, web, name: "retained" }).await;
                    will(&Talk { broker, web, name: "will" }).await;
                    session_resume(&Talk { broker, web, name: "session" }).await;
                }
            }
        }
    };
}

talks!(
    v311,
    "3.1.1",
    [rumqttc],
    [rumqttc::mqttbytes::v4],
    [rumqttc::mqttbytes::QoS],
    |topic: &str, payload: &str| rumqttc::LastWill::new(topic, payload, QoS::AtLeastOnce, false),
    |options: &mut MqttOptions| {
        options.set_clean_session(false);
    }
);
talks!(
    v5,
    "5",
    [rumqttc::v5],
    [rumqttc::v5::mqttbytes::v5],
    [rumqttc::v5::mqttbytes::QoS],
    |topic: &str, payload: &str| {
        packets::LastWill::new(topic, payload.to_owned(), QoS::AtLeastOnce, false, None)
    },
    |options: &mut MqttOptions| {
        options.set_clean_start(false).set_session_expiry_interval(Some(300));
    }
);

/// Both versions over both transports.
pub(crate) fn run(broker: &Broker) {
    runtime().block_on(async {
        v311::all(broker).await;
        v5::all(broker).await;
    });
}

/// Both versions, with a `kill -9` of the server in between.
pub(crate) fn across_a_kill(broker: &mut Broker) {
    runtime().block_on(async {
        v311::across_a_kill(broker).await;
        v5::across_a_kill(broker).await;
    });
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}
