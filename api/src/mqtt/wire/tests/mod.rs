//! Tests of the bytes of MQTT.

mod round_trip;
mod samples;
