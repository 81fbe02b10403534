//! Real clients that others wrote, against the real binary: scripted talks in every version of MQTT, over TCP and
//! WebSocket, and in the rooms of gotapi-ws; and the Autobahn test suite against a room that echoes. What the clients
//! need is put into the user's cache by `scripts/interop_setup.sh` and `scripts/autobahn_setup.sh`, once per machine.
//!
//! `FEEDLOG_INTEROP_TCP` and `FEEDLOG_INTEROP_WS` (ADDR:PORT each) let the same talks run against another broker.

// The whole binary is a test: its helpers stop at the first surprise, as the tests do.
#![allow(clippy::unwrap_used)]

mod autobahn;
mod broker;
mod rumqttc;
mod script;

use broker::Broker;
use script::{clients, run};

/// In --dev any name is its own token.
const LOGIN: [&str; 4] = ["--username", "alice", "--password", "alice"];

#[test]
fn the_clients_of_mosquitto() {
    let broker = Broker::start();
    let (host, port) = (broker.mqtt.ip().to_string(), broker.mqtt.port().to_string());
    run("bash", &["tests/interop/mosquitto.sh", &host, &port, "alice", "alice"], &[]);
}

#[test]
fn paho_mqtt_1_of_python() {
    paho_of_python("paho1");
}

#[test]
fn paho_mqtt_2_of_python() {
    paho_of_python("paho2");
}

fn paho_of_python(environment: &str) {
    let broker = Broker::start();
    let python = clients().join(environment).join("bin/python");
    let (tcp, web) = (broker.mqtt.to_string(), format!("{}/mqtt", broker.http));
    let mut arguments = vec!["tests/interop/paho_python.py", "--tcp", &tcp, "--ws", &web];
    arguments.extend(LOGIN);
    run(python.to_str().unwrap(), &arguments, &[]);
}

#[test]
fn mqtt_js() {
    let broker = Broker::start();
    let modules = clients().join("node_modules");
    let (tcp, web) = (broker.mqtt.to_string(), format!("{}/mqtt", broker.http));
    let mut arguments = vec!["tests/interop/mqttjs.js", "--tcp", &tcp, "--ws", &web];
    arguments.extend(LOGIN);
    run("node", &arguments, &[("NODE_PATH", modules.as_os_str())]);
}

#[test]
fn paho_js_in_chromium() {
    let broker = Broker::start();
    let modules = clients().join("node_modules");
    let web = broker.http.to_string();
    let mut arguments = vec!["tests/interop/browser/drive.js", "--ws", &web];
    // Only feedlog has the topics of protobuf bodies.
    arguments.extend(broker.is_another().then_some("--no-protobuf"));
    run("node", &arguments, &[("NODE_PATH", modules.as_os_str())]);
}

#[test]
fn rumqttc_3_1_1_and_5() {
    rumqttc::run(&Broker::start());
}

#[test]
fn sessions_of_rumqttc_outlive_a_killed_server() {
    rumqttc::across_a_kill(&mut Broker::start());
}

#[test]
fn gotapi_ws_in_chromium() {
    let server = Broker::start_with(&[("FEEDLOG__HTTP__CORS_ORIGINS", "*")]);
    let modules = clients().join("node_modules");
    let at = server.http.to_string();
    let arguments = ["tests/interop/gws/browser.js", "--server", &at];
    run("node", &arguments, &[("NODE_PATH", modules.as_os_str())]);
}

/// `node-gotapi-ws` can no longer be installed; its frames and times, with npm `ws`.
#[test]
fn gotapi_ws_with_the_frames_and_times_of_its_client() {
    let modules = clients().join("node_modules");
    let arguments = ["tests/interop/gws/client.js", "--feedlog", env!("CARGO_BIN_EXE_feedlog")];
    run("node", &arguments, &[("NODE_PATH", modules.as_os_str())]);
}
