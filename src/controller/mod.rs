//! The controllers: what turns a change in the cluster into a pass of observe → plan → apply → status.

pub mod context;
