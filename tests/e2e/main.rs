//! The real binary, as people run it: a server on a free port, the command line against it.

mod commands;
mod harness;
mod logs;
mod serving;
