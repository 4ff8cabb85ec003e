//! The two vendors' rate limits: Hetzner's leaky bucket per project, Cloudflare's window per user
//! that ends in a block.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// The size and speed of a project's bucket. Hetzner's own: 3,600 an hour, one back per second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BucketLimit {
    /// Requests that a full bucket holds.
    pub limit: u32,
    /// Requests that come back per second.
    pub refill_per_second: f64,
}

impl Default for BucketLimit {
    fn default() -> Self {
        Self { limit: 3600, refill_per_second: 1.0 }
    }
}

/// Hetzner's rate limit of a project, a leaky bucket.
#[derive(Debug, Clone)]
pub struct Bucket {
    limit: BucketLimit,
    level: f64,
    at: Instant,
}

/// What one request did to the bucket, as Hetzner tells it in its headers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BucketReading {
    /// Whether the request may pass.
    pub allowed: bool,
    /// `RateLimit-Limit`.
    pub limit: u32,
    /// `RateLimit-Remaining`.
    pub remaining: u32,
    /// Time until the bucket is full again (`RateLimit-Reset` is that moment as Unix time).
    pub until_full: Duration,
}

impl Bucket {
    /// Begins full.
    pub fn new(limit: BucketLimit, now: Instant) -> Self {
        Self { limit, level: f64::from(limit.limit), at: now }
    }

    /// Takes one request out of the bucket if there is one. `scale` multiplies time.
    pub fn take(&mut self, now: Instant, scale: f64) -> BucketReading {
        let full = f64::from(self.limit.limit);
        let rate = self.limit.refill_per_second / scale;
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + elapsed * rate).min(full);
        self.at = now;
        let allowed = self.level >= 1.0;
        if allowed {
            self.level -= 1.0;
        }
        let missing = full - self.level;
        let until_full = if rate > 0.0 { missing / rate } else { 3600.0 };
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let remaining = self.level.floor() as u32;
        BucketReading {
            allowed,
            limit: self.limit.limit,
            remaining,
            until_full: Duration::from_secs_f64(until_full),
        }
    }
}

/// The size of a user's window. Cloudflare's own: 1,200 in five minutes, then five minutes of 429.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WindowLimit {
    /// Requests that one window allows.
    pub requests: u32,
    /// Length of the window in seconds.
    pub window_seconds: f64,
    /// Length of the block in seconds.
    pub block_seconds: f64,
}

impl Default for WindowLimit {
    fn default() -> Self {
        Self { requests: 1200, window_seconds: 300.0, block_seconds: 300.0 }
    }
}

/// A user's window, shared by all tokens of that user.
#[derive(Debug, Clone)]
pub struct Window {
    limit: WindowLimit,
    began: Instant,
    used: u32,
    blocked_until: Option<Instant>,
}

impl Window {
    /// A window that begins now.
    pub fn new(limit: WindowLimit, now: Instant) -> Self {
        Self { limit, began: now, used: 0, blocked_until: None }
    }

    /// Counts one request. `Err` says how long every call stays blocked.
    pub fn take(&mut self, now: Instant, scale: f64) -> Result<(), Duration> {
        if let Some(until) = self.blocked_until {
            if now < until {
                return Err(until - now);
            }
            self.blocked_until = None;
            self.began = now;
            self.used = 0;
        }
        if now - self.began >= Duration::from_secs_f64(self.limit.window_seconds * scale) {
            self.began = now;
            self.used = 0;
        }
        if self.used >= self.limit.requests {
            let block = Duration::from_secs_f64(self.limit.block_seconds * scale);
            self.blocked_until = Some(now + block);
            return Err(block);
        }
        self.used += 1;
        Ok(())
    }
}
