"""Scripted talks of paho-mqtt (Python) with a broker: every version of MQTT, over TCP and WebSocket.

    python paho_python.py --tcp 127.0.0.1:1883 --ws 127.0.0.1:7171/mqtt [--username U --password P]

Runs with paho-mqtt 1.6 and 2.x. Prints one line per talk; ends with 1 at the first that fails.
"""

import argparse
import os
import queue
import socket
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

PATIENCE_S = 15
PAHO_2 = hasattr(mqtt, "CallbackAPIVersion")
VERSIONS = {"3.1": mqtt.MQTTv31, "3.1.1": mqtt.MQTTv311, "5": mqtt.MQTTv5}


class Failed(Exception):
    pass


def check(fact, what):
    if not fact:
        raise Failed(what)


class Peer:
    """A client whose callbacks become queues."""

    def __init__(self, talk, name, clean=True, will=None, expiry_s=None, will_delay_s=None):
        self.talk, self.v5 = talk, talk.version == "5"
        self.connected, self.ended = queue.Queue(), queue.Queue()
        self.messages, self.acks, self.subacks = queue.Queue(), queue.Queue(), queue.Queue()
        first = [mqtt.CallbackAPIVersion.VERSION2] if PAHO_2 else []
        # MQTT 5 says at CONNECT whether the session starts clean; older versions when the client is made.
        options = {} if self.v5 else {"clean_session": clean}
        self.client = c = mqtt.Client(
            *first, client_id=name, protocol=VERSIONS[talk.version], transport=talk.transport, **options
        )
        if talk.args.username:
            c.username_pw_set(talk.args.username, talk.args.password)
        if talk.transport == "websockets":
            c.ws_set_options(path=talk.path)
        if will:
            properties = None
            if self.v5 and will_delay_s is not None:
                properties = Properties(PacketTypes.WILLMESSAGE)
                properties.WillDelayInterval = will_delay_s
            topic, payload, qos, retain = will
            c.will_set(topic, payload, qos, retain, **({"properties": properties} if self.v5 else {}))
        # (client, userdata, flags, reason[, properties]) in both callback APIs.
        c.on_connect = lambda _c, _u, flags, reason, *_: self.connected.put((session_present(flags), code(reason)))
        c.on_disconnect = lambda *_: self.ended.put(True)
        c.on_message = lambda _c, _u, message: self.messages.put(message)
        c.on_publish = lambda _c, _u, mid, *_: self.acks.put(mid)
        c.on_subscribe = lambda _c, _u, _mid, reasons, *_: self.subacks.put([code(r) for r in reasons])
        c.on_unsubscribe = lambda *_: self.subacks.put("unsubscribed")
        connect = {}
        if self.v5:
            connect["clean_start"] = clean
            if expiry_s is not None:
                properties = Properties(PacketTypes.CONNECT)
                properties.SessionExpiryInterval = expiry_s
                connect["properties"] = properties
        c.connect(talk.host, talk.port, keepalive=30, **connect)
        c.loop_start()
        self.session_present, reason = self.take(self.connected, f"CONNACK for {name}")
        check(reason == 0, f"{name} is refused: {reason}")
        talk.peers.append(self)

    def take(self, source, what):
        try:
            return source.get(timeout=PATIENCE_S)
        except queue.Empty:
            raise Failed(f"no {what} within {PATIENCE_S} s") from None

    def subscribe(self, topic, qos, options=None, properties=None):
        if self.v5:
            options = options or SubscribeOptions(qos=qos)
            self.client.subscribe(topic, options=options, properties=properties)
        else:
            self.client.subscribe(topic, qos)
        reasons = self.take(self.subacks, "SUBACK")
        check(reasons == [qos], f"SUBACK for {topic}: {reasons}, asked for {qos}")

    def publish(self, topic, payload, qos, retain=False, properties=None):
        info = self.client.publish(topic, payload, qos, retain, **({"properties": properties} if properties else {}))
        check(info.rc == 0, f"publish returned {info.rc}")
        check(self.take(self.acks, f"ack of QoS {qos}") == info.mid, "the ack is of another message")

    def message(self):
        return self.take(self.messages, "message")

    def expect(self, *payloads):
        for wanted in payloads:
            got = self.message()
            check(got.payload == wanted.encode(), f"wanted {wanted!r}, came {got.payload!r} on {got.topic}")

    def leave(self):
        """DISCONNECT, and wait until the connection is closed."""
        self.client.disconnect()
        self.take(self.ended, "end of the connection")
        self.client.loop_stop()

    def cut(self):
        """The connection breaks: no DISCONNECT."""
        raw = self.client.socket()
        raw = getattr(raw, "_socket", raw)  # below paho's WebSocket
        raw.shutdown(socket.SHUT_RDWR)
        self.client.loop_stop()


def session_present(flags):
    return bool(flags["session present"] if isinstance(flags, dict) else flags.session_present)


def code(reason):
    return reason if isinstance(reason, int) else reason.value


class Talk:
    def __init__(self, args, version, transport):
        self.args, self.version, self.transport, self.peers = args, version, transport, []
        where = args.tcp if transport == "tcp" else args.ws
        address, _, path = where.partition("/")
        self.path = "/" + path
        host, _, port = address.rpartition(":")
        self.host, self.port = host, int(port)
        # Short and of letters and digits: what every version must accept.
        self.run = f"p{os.getpid() % 100000}v{version.replace('.', '')}{transport[0]}"
        self.prefix = f"interop/{self.run}"

    def peer(self, name, **options):
        return Peer(self, f"{self.run}{name}", **options)

    def close(self):
        for peer in self.peers:
            peer.client.disconnect()
            peer.client.loop_stop()


def every_qos_both_ways(talk):
    sub, pub = talk.peer("sub"), talk.peer("pub")
    for granted in (0, 1, 2):
        topic = f"{talk.prefix}/qos/{granted}"
        sub.subscribe(topic, granted)
        for sent in (0, 1, 2):
            payload = f"{sent} to {granted} é😀"
            pub.publish(topic, payload.encode(), sent)
            got = sub.message()
            check(got.payload.decode() == payload and got.topic == topic, f"came {got.payload!r} on {got.topic}")
            check(got.qos == min(sent, granted), f"{payload}: arrived with QoS {got.qos}")
            check(not got.retain, "a live message says it is retained")


def an_empty_and_a_large_payload(talk):
    sub, pub = talk.peer("sub"), talk.peer("pub")
    topic = f"{talk.prefix}/size"
    sub.subscribe(topic, 2)
    for size in (0, 1, 127, 128, 16_383, 16_384, 60_000):
        body = bytes(n % 256 for n in range(size))
        pub.publish(topic, body, 1)
        check(sub.message().payload == body, f"{size} bytes do not come as they were sent")


def wildcards(talk):
    sub, pub = talk.peer("sub"), talk.peer("pub")
    sub.subscribe(f"{talk.prefix}/w/+/end", 1)
    sub.subscribe(f"{talk.prefix}/deep/#", 1)
    pub.publish(f"{talk.prefix}/w/a/b/end", b"no", 1)
    pub.publish(f"{talk.prefix}/w/a/end", b"plus", 1)
    pub.publish(f"{talk.prefix}/deep", b"parent", 1)
    pub.publish(f"{talk.prefix}/deep/a//b", b"deep", 1)
    sub.expect("plus", "parent", "deep")
    sub.client.unsubscribe(f"{talk.prefix}/deep/#")
    check(sub.take(sub.subacks, "UNSUBACK") == "unsubscribed", "no UNSUBACK")
    pub.publish(f"{talk.prefix}/deep/a", b"gone", 1)
    pub.publish(f"{talk.prefix}/w/x/end", b"still", 1)
    sub.expect("still")


def retained(talk):
    pub, topic = talk.peer("pub"), f"{talk.prefix}/retained"
    pub.publish(topic, b"old", 1, retain=True)
    pub.publish(topic, b"new", 1, retain=True)
    first = talk.peer("one")
    first.subscribe(topic, 1)
    got = first.message()
    check(got.payload == b"new" and got.retain, f"retained: {got.payload!r}, flag {got.retain}")
    pub.publish(topic, b"live", 1)
    got = first.message()
    check(got.payload == b"live" and not got.retain, "a live message says it is retained")
    # Empty and retained clears, and is passed on; after it nothing is kept.
    pub.publish(topic, b"", 1, retain=True)
    check(first.message().payload == b"", "the clearing message is not passed on")
    second = talk.peer("two")
    second.subscribe(topic, 1)
    pub.publish(topic, b"after", 1)
    second.expect("after")


def will(talk):
    sub, topic = talk.peer("sub"), f"{talk.prefix}/will"
    sub.subscribe(topic, 2)
    polite = talk.peer("polite", will=(topic, b"never", 1, False))
    polite.leave()
    talk.peer("cut", will=(topic, b"cut off", 2, True)).cut()
    got = sub.message()
    check(got.payload == b"cut off", f"the will is {got.payload!r}")
    late = talk.peer("late")
    late.subscribe(topic, 1)
    got = late.message()
    check(got.payload == b"cut off" and got.retain, "the retained will is not kept")
    late.publish(topic, b"", 1, retain=True)


def session_resume(talk):
    keep = {"clean": False, "expiry_s": 300} if talk.version == "5" else {"clean": False}
    topic = f"{talk.prefix}/session"
    sub = talk.peer("keep", **keep)
    check(not sub.session_present, "a session that nobody had")
    sub.subscribe(topic, 2)
    sub.leave()
    pub = talk.peer("pub")
    for n in range(20):
        pub.publish(topic, f"offline {n}".encode(), 1 + n % 2)
    sub = talk.peer("keep", **keep)
    # 3.1 has no such flag; paho reads the byte all the same.
    check(sub.session_present or talk.version == "3.1", "the session is not there any more")
    # paho hands a message of QoS 2 over when its PUBREL comes, so order is to be seen within each QoS.
    came = [sub.message().payload.decode() for _ in range(20)]
    for part in (0, 1):
        own = [payload for payload in came if int(payload.split()[1]) % 2 == part]
        check(own == [f"offline {n}" for n in range(part, 20, 2)], f"QoS {1 + part}: {own}")
    pub.publish(topic, b"live", 1)
    sub.expect("live")
    sub.leave()
    # Kept for a session that is then discarded.
    pub.publish(topic, b"nobody", 1)
    clean = talk.peer("keep")
    check(not clean.session_present, "a clean start found a session")
    clean.subscribe(topic, 1)
    pub.publish(topic, b"somebody", 1)
    clean.expect("somebody")


def takeover(talk):
    topic = f"{talk.prefix}/takeover"
    old = talk.peer("same")
    # Else paho comes back by itself, and the two would push each other out for ever.
    old.client.on_connect = None
    old.client.reconnect_delay_set(min_delay=60, max_delay=60)
    new = talk.peer("same")
    old.take(old.ended, "end of the old connection")
    old.client.loop_stop()
    new.subscribe(topic, 1)
    new.publish(topic, b"mine", 1)
    new.expect("mine")


def nothing_from_before(talk):
    sub, pub = talk.peer("sub"), talk.peer("pub")
    for n in range(5):
        topic = f"{talk.prefix}/before/{n}"
        pub.publish(topic, b"before", 1)
        sub.subscribe(topic, 1)
        pub.publish(topic, b"after", 1)
        sub.expect("after")


def will_delay_of_5(talk):
    sub, topic = talk.peer("sub"), f"{talk.prefix}/delay"
    sub.subscribe(topic, 1)
    # Longer than paho takes to stop.
    keep = {"clean": False, "expiry_s": 300, "will_delay_s": 4}
    talk.peer("dying", will=(topic, b"first", 1, False), **keep).cut()
    # Back in time, so the first will is void; not back the second time.
    again = talk.peer("dying", will=(topic, b"second", 1, False), **keep)
    check(again.session_present, "the session is not there any more")
    again.cut()
    sub.expect("second")


def properties_of_5(talk):
    sub, pub, topic = talk.peer("sub"), talk.peer("pub"), f"{talk.prefix}/properties"
    subscribe = Properties(PacketTypes.SUBSCRIBE)
    subscribe.SubscriptionIdentifier = 300
    sub.subscribe(topic, 1, properties=subscribe)
    sent = Properties(PacketTypes.PUBLISH)
    sent.ContentType, sent.ResponseTopic, sent.CorrelationData = "text/x", f"{topic}/answer", b"\x00\x01"
    sent.PayloadFormatIndicator, sent.MessageExpiryInterval = 1, 100
    sent.UserProperty = [("b", "1"), ("a", "2"), ("b", "3")]
    pub.publish(topic, b"x", 1, properties=sent)
    got = sub.message().properties
    check(got.ContentType == "text/x" and got.ResponseTopic == f"{topic}/answer", "content type, response topic")
    check(got.CorrelationData == b"\x00\x01" and got.PayloadFormatIndicator == 1, "correlation, format")
    check(90 <= got.MessageExpiryInterval <= 100, f"expiry {got.MessageExpiryInterval}")
    check(got.SubscriptionIdentifier == [300], f"subscription id {got.SubscriptionIdentifier}")
    ours = [pair for pair in got.UserProperty if pair[0] in ("a", "b")]
    check(ours == [("b", "1"), ("a", "2"), ("b", "3")], f"user properties {got.UserProperty}")
    # A publisher's topic alias: name and alias first, then the alias alone.
    for name, payload in ((topic, b"named"), ("", b"alias alone")):
        alias = Properties(PacketTypes.PUBLISH)
        alias.TopicAlias = 1
        if name:
            pub.publish(name, payload, 1, properties=alias)
        else:
            publish_alias_alone(pub, payload, alias)
    sub.expect("named", "alias alone")


def publish_alias_alone(peer, payload, properties):
    """paho.publish refuses an empty topic although an alias stands for it; one layer below it sends."""
    mid = peer.client._mid_generate()
    message = mqtt.MQTTMessage(mid, b"")
    message.payload, message.qos, message.retain, message.properties = payload, 1, False, properties
    with peer.client._out_message_mutex:
        message.state = mqtt.mqtt_ms_wait_for_puback
        peer.client._out_messages[mid] = message
        peer.client._inflight_messages += 1
    peer.client._send_publish(mid, b"", payload, 1, False, False, message.info, properties)
    check(peer.take(peer.acks, "ack") == mid, "the ack is of another message")


def subscriptions_of_5(talk):
    pub, topic = talk.peer("pub"), f"{talk.prefix}/options"
    pub.publish(topic, b"kept", 1, retain=True)
    sub = talk.peer("sub")
    never = SubscribeOptions(qos=1, noLocal=True, retainAsPublished=True, retainHandling=2)
    sub.subscribe(topic, 1, options=never)
    sub.publish(topic, b"own", 1)
    pub.publish(topic, b"flagged", 1, retain=True)
    got = sub.message()
    check(got.payload == b"flagged" and got.retain, f"no-local, retain handling: {got.payload!r} {got.retain}")
    # Shared: each message goes to exactly one of the two.
    shared = f"{talk.prefix}/shared"
    members = [talk.peer("a"), talk.peer("b")]
    inbox = queue.Queue()
    for member in members:
        member.client.on_message = lambda _c, _u, message: inbox.put(message.payload)
        member.subscribe(f"$share/g/{shared}", 1)
    wanted = {f"n{n}".encode() for n in range(20)}
    for payload in sorted(wanted):
        pub.publish(shared, payload, 1)
    came = []
    while len(came) < 20:
        came.append(members[0].take(inbox, "shared message"))
    check(set(came) == wanted and inbox.empty(), f"shared: {came}")
    pub.publish(topic, b"", 1, retain=True)


TALKS = [
    every_qos_both_ways,
    an_empty_and_a_large_payload,
    wildcards,
    retained,
    will,
    session_resume,
    takeover,
    nothing_from_before,
]
TALKS_OF_5 = [properties_of_5, subscriptions_of_5, will_delay_of_5]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tcp", required=True)
    parser.add_argument("--ws", required=True)
    parser.add_argument("--username")
    parser.add_argument("--password")
    parser.add_argument("--only", help="talks whose name has this in it")
    args = parser.parse_args()
    threading.excepthook = lambda error: os._exit(print("a callback failed:", error.exc_value, file=sys.stderr) or 1)
    failed = 0
    for transport in ("tcp", "websockets"):
        for version in VERSIONS:
            for steps in TALKS + (TALKS_OF_5 if version == "5" else []):
                if args.only and args.only not in steps.__name__:
                    continue
                talk = Talk(args, version, transport)
                name = f"paho-mqtt {getattr(mqtt, '__version__', '') or paho_version()} MQTT {version} {transport}"
                try:
                    steps(talk)
                    print(f"ok      {name}: {steps.__name__}", flush=True)
                except Failed as error:
                    failed += 1
                    print(f"FAILED  {name}: {steps.__name__}: {error}", flush=True)
                finally:
                    talk.close()
    sys.exit(1 if failed else 0)


def paho_version():
    import paho.mqtt

    return paho.mqtt.__version__


main()
