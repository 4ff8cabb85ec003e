//! The Moorage operator: custom resources in, customers' servers out.
//!
//! Data flows one way: observe → plan → apply → status.

pub mod api;
