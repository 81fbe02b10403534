//! Tests of the bytes of MQTT. Tests of a rule carry a number, `w01` and on, by which the documents name them.

mod arrivals;
mod corpus;
mod generate;
mod given;
mod meanings;
mod noise;
mod oracles;
mod round_trip;
mod rules_bytes;
mod rules_connect;
mod rules_packets;
mod rules_properties;
mod samples;
