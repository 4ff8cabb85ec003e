//! Letting browsers in whose pairing the owner approved. Only ids of requests that wait reach the
//! command line.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{WorkError, Worker, protocol::PairingId};

impl Worker {
    pub(super) async fn approve_pairings(
        &self,
        requests: &BTreeSet<PairingId>,
    ) -> Result<usize, WorkError> {
        if requests.is_empty() {
            return Ok(0);
        }
        let list = self.program.json("devices list", &["devices", "list", "--json"]).await?;
        let waiting = waiting(&list);
        let mut approved = 0;
        for request in requests.intersection(&waiting) {
            let arguments = ["devices", "approve", request.as_str(), "--json"];
            self.program.json("devices approve", &arguments).await?;
            approved += 1;
        }
        Ok(approved)
    }
}

/// The ids of the requests that wait.
fn waiting(list: &Value) -> BTreeSet<PairingId> {
    let pending = list.get("pending").and_then(Value::as_array);
    let ids = pending.into_iter().flatten().filter_map(|entry| entry.get("requestId")?.as_str());
    ids.filter_map(PairingId::parse).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_ids_that_wait_and_are_plain_words_are_known() {
        let list = json!({
            "pending": [{"requestId": "a-1"}, {"requestId": "--latest"}, {"deviceId": "b"}],
            "paired": [{"requestId": "c"}],
        });
        assert_eq!(waiting(&list).iter().map(PairingId::as_str).collect::<Vec<_>>(), ["a-1"]);
        assert!(waiting(&json!([])).is_empty());
    }
}
