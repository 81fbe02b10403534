//! One port for all WebSocket protocols, told apart by subprotocol and path [gws: cross-protocol path clash, paths].

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::world::{World, services, store};
use crate::connmix::{Connmix, ConnmixConfig};
use crate::gws::{Gws, GwsConfig};
use crate::http::{HttpConfig, Services, serve};
use crate::mqtt::{Mqtt, MqttConfig};

/// Who answered on a path: the subprotocol that was chosen, `gws` or `connmix` by their answer to a frame that each
/// understands in its own way, or the status of a refusal.
async fn answers(server: SocketAddr, path: &str, offered: Option<&str>) -> String {
    let mut request = format!("ws://{server}{path}?token=ada").into_client_request().unwrap();
    if let Some(offered) = offered {
        request.headers_mut().insert("sec-websocket-protocol", offered.parse().unwrap());
    }
    let stream = TcpStream::connect(server).await.unwrap();
    let (mut socket, response) = match tokio_tungstenite::client_async(request, stream).await {
        Ok(answered) => answered,
        Err(Error::Http(response)) => return response.status().as_u16().to_string(),
        // Nothing was chosen of what was offered: a browser gives up as well (RFC 6455 §4.1).
        Err(Error::Protocol(_)) => return "no subprotocol".to_owned(),
        Err(other) => panic!("{other}"),
    };
    if let Some(chosen) = response.headers().get("sec-websocket-protocol") {
        return chosen.to_str().unwrap().to_owned();
    }
    socket.send(Message::text(r#"{"op":"subscribe","channel":"@user","type":2,"uuid":"u"}"#)).await.unwrap();
    match socket.next().await {
        Some(Ok(Message::Text(text))) if text.contains("Not Auth") => "connmix".to_owned(),
        Some(Ok(Message::Text(text))) if text.contains(r#""uuid":"u""#) => "gws".to_owned(),
        Some(Ok(Message::Text(text))) if text.contains(r#""error""#) => "native".to_owned(),
        // Text is no MQTT.
        Some(Ok(Message::Close(Some(frame)))) if u16::from(frame.code) == 1003 => "mqtt by path".to_owned(),
        other => panic!("{path}: {other:?}"),
    }
}

#[tokio::test]
async fn one_port_tells_the_protocols_apart() {
    let store = store();
    let services = Services {
        mqtt: Some(Mqtt::new(MqttConfig::default(), store.clone()).unwrap()),
        gws: Some(Gws::new(GwsConfig::default(), store.clone()).unwrap()),
        connmix: Some(Connmix::new(ConnmixConfig::default(), store.clone()).unwrap()),
        ..services(store)
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap();
    tokio::spawn(serve(HttpConfig::default(), vec![listener.into()], services, std::future::pending()));
    for (path, offered, who) in [
        ("/room/a", None, "gws"),
        ("/", None, "gws"),
        ("/message-center", None, "connmix"),
        ("/v1/ws", None, "native"),
        ("/mqtt", None, "mqtt by path"),
        ("/room/a", Some("mqtt"), "mqtt"),
        ("/message-center", Some("mqttv3.1"), "mqttv3.1"),
        ("/room/a", Some("xmpp"), "404"),
        ("/xmpp-websocket", Some("xmpp"), "404"),
        ("/room/a", Some("chat"), "no subprotocol"),
        ("/xmpp-websocket", None, "404"),
        ("/v1/nothing", None, "404"),
        ("/mqtt/more", None, "404"),
    ] {
        assert_eq!(answers(server, path, offered).await, who, "{path} {offered:?}");
    }
}

#[tokio::test]
async fn the_root_leads_to_the_documentation_where_there_is_one() {
    let world = World::new();
    let got = world.text("ada", "GET", "/", "").await;
    assert_eq!((got.status, got.headers["location"].to_str().unwrap()), (307, "/docs"));
    let world = World::with(store(), HttpConfig { docs: false, ..HttpConfig::default() });
    assert_eq!(world.text("ada", "GET", "/", "").await.status, 404);
}
