//! The front end as clients and back ends see it, over the real server.

mod world;

mod bounds;
mod clients;
mod connections;
mod login;
mod publishing;
mod queues;
mod resuming;
mod who;
