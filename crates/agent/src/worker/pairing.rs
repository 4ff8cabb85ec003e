//! Letting browsers in whose pairing the owner approved, by the newest document that the operator signed.
//! Only ids of requests that wait reach the command line.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    WorkError, Worker,
    protocol::{Answer, PairingId},
};

impl Worker {
    pub(super) async fn approve_pairings(
        &self,
        requests: &BTreeSet<PairingId>,
    ) -> Result<Answer, WorkError> {
        let newest = self.orders.newest()?;
        let is_approved = |request: &&PairingId| {
            let approved = newest.as_ref().map(|kept| &kept.state.approved_pairings);
            approved.is_some_and(|approved| approved.contains(request.as_str()))
        };
        let requests: BTreeSet<PairingId> = requests.iter().filter(is_approved).cloned().collect();
        let (mut approved, mut refused) = (BTreeSet::new(), BTreeSet::new());
        if !requests.is_empty() {
            let list = self.program.json("devices list", &["devices", "list", "--json"]).await?;
            for request in requests.intersection(&waiting(&list)) {
                let arguments = ["devices", "approve", request.as_str(), "--json"];
                match self.program.json("devices approve", &arguments).await {
                    Ok(_) => approved.insert(request.clone()),
                    Err(error) => {
                        tracing::warn!(request = request.as_str(), %error, "no pairing");
                        refused.insert(request.clone())
                    }
                };
            }
        }
        Ok(Answer::Pairings { approved, refused })
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
