//! Small rules that several requests share.

use super::ApiError;
use super::body::IdOrName;

/// Largest user-data Hetzner takes, in bytes.
const USER_DATA_LIMIT: usize = 32 * 1024;

/// One label of a DNS name in lower or upper case: letters, digits, and hyphens inside.
pub(crate) fn is_dns_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
        && bytes.first() != Some(&b'-')
        && bytes.last() != Some(&b'-')
}

/// A server's name must be a valid host name (RFC 1123).
pub(crate) fn server_name(name: &str) -> Result<(), ApiError> {
    if name.len() <= 253 && name.split('.').all(is_dns_label) {
        Ok(())
    } else {
        Err(ApiError::invalid("name", "must be a valid hostname as per RFC 1123"))
    }
}

/// Names of firewalls, keys and the like: anything but nothing.
pub(crate) fn plain_name(name: &str) -> Result<(), ApiError> {
    if name.is_empty() || name.len() > 128 {
        return Err(ApiError::invalid("name", "must have 1 to 128 characters"));
    }
    Ok(())
}

/// User-data is at most 32 KiB.
pub(crate) fn user_data(user_data: &str) -> Result<(), ApiError> {
    if user_data.len() > USER_DATA_LIMIT {
        return Err(ApiError::invalid(
            "user_data",
            format!("length must be at most {USER_DATA_LIMIT} bytes"),
        ));
    }
    Ok(())
}

/// Kinds of resources that this simulator has none of: any reference to one is wrong.
pub(crate) fn nothing_of(field: &str, kind: &str, ids: &[u64]) -> Result<(), ApiError> {
    match ids.first() {
        Some(id) => Err(ApiError::invalid(field, format!("{kind} {id} not found"))),
        None => Ok(()),
    }
}

/// 422 for a reference that leads nowhere.
pub(crate) fn unknown(field: &str, reference: &IdOrName) -> ApiError {
    ApiError::invalid(field, format!("{field} '{reference}' not found"))
}
