//! Protobuf bodies without sockets: `pb/…` topics of Paho web clients (`proto/feedlog.proto`).

pub mod wire;
