//! Objects in a line or two, for messages.

use serde_json::Value;

/// The phase and the conditions of an object, as `Ready=False/Progressing (…)`, one a line.
pub fn conditions(object: &Value) -> String {
    let status = &object["status"];
    let phase = status["phase"].as_str().map(|phase| format!("phase {phase}"));
    let conditions = status["conditions"].as_array().into_iter().flatten().map(|condition| {
        let text = |key: &str| condition[key].as_str().unwrap_or("?");
        format!("{}={}/{} ({})", text("type"), text("status"), text("reason"), text("message"))
    });
    let lines: Vec<String> = phase.into_iter().chain(conditions).collect();
    if lines.is_empty() { "no status yet".to_owned() } else { lines.join("\n") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_object_without_status_says_so() {
        assert_eq!(conditions(&json!({"spec": {}})), "no status yet");
    }

    #[test]
    fn conditions_are_one_a_line() {
        let condition =
            json!({"type": "Ready", "status": "False", "reason": "Progressing", "message": "m"});
        let object = json!({"status": {"phase": "Provisioning", "conditions": [condition]}});
        assert_eq!(conditions(&object), "phase Provisioning\nReady=False/Progressing (m)");
    }
}
