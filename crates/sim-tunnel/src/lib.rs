//! What both ends of a simulated tunnel share: cloudflared's registration, the types and headers of its
//! streams, ingress rules and run tokens. The edge and the connector that stands in for cloudflared
//! build on it; the real cloudflared speaks the same.

pub mod body;
pub mod ingress;
pub mod registration;
pub mod streams;
pub mod token;
