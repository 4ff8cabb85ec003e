//! The Moorage agent: the management service on each customer's server. It is a reconciler: it holds
//! one desired-state document and sealed credentials, and converges the server to them.

pub mod installer;
