//! What the API server itself refuses, so that a key in the clear never reaches etcd: two
//! `ValidatingAdmissionPolicy` objects, made from the tables by which the operator recognises keys. It
//! refuses less than the operator does, and nothing that the operator takes.
//!
//! CEL has no recursion, so the walk through a configuration is written out to [`DEPTH`].

use k8s_openapi::{
    api::admissionregistration::v1::{
        MatchCondition, MatchResources, NamedRuleWithOperations, ValidatingAdmissionPolicy,
        ValidatingAdmissionPolicyBinding, ValidatingAdmissionPolicyBindingSpec,
        ValidatingAdmissionPolicySpec, Validation, Variable,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::{
    api::{GROUP, SEALED_SECRET_TYPE},
    openclaw::keys::{names, patterns, search, values},
};

/// Name of the policy over instances.
pub const LITERAL_KEYS: &str = "moorage-literal-keys";
/// Name of the policy over Secrets of sealed values.
pub const SEALED_CREDENTIALS: &str = "moorage-sealed-credentials";

/// How deep the walk goes: the deepest place where OpenClaw takes a key is at 11.
const DEPTH: usize = 12;
/// Between two texts: a line break ends whatever asks for more of the same line, and what follows ends
/// whatever goes over lines.
const BETWEEN: &str = r"'\n\u0001\n'";

/// Some of what `values::plain` does: what is not seen goes, what only looks different is as it looks.
const UNSEEN: &str = concat!(
    r".replace('\u200b', '').replace('\u200c', '').replace('\u200d', '').replace('\u2060', '')",
    r".replace('\ufeff', '').replace('\u00ad', '').replace('\u2010', '-').replace('\u2011', '-')",
);

/// The beginning of what `moorage seal` and kubeseal make, in base64: the length of the RSA part, for
/// keys of 4096, 3072 and 2048 bits.
const SEALED: &str = r"^\s*(?:Ag|AY|AQ)[A-D]";
/// The same once more in base64, as a Secret's data holds the text, or as it holds the bytes.
const SEALED_DATA: &str = r"^(?:(?:QWd|QVl|QVF)[B-E]|(?:Ag|AY|AQ)[A-D])";
/// Less than any sealed value has, in the base64 of its bytes.
const LEAST_SEALED: usize = 360;

/// Each policy with what puts it into force.
pub fn policies() -> [(ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding); 2] {
    [(literal_keys(), binding(LITERAL_KEYS)), (sealed_credentials(), binding(SEALED_CREDENTIALS))]
}

fn literal_keys() -> ValidatingAdmissionPolicy {
    // What was there before can still be edited: its finalizers, its labels, its other fields.
    let is_new = "has(object.spec) && has(object.spec.config) && (oldObject == null || !has(oldObject.spec) || !has(oldObject.spec.config) || oldObject.spec.config != object.spec.config)";
    let was_there = "oldObject != null && has(oldObject.spec) && has(oldObject.spec.credentials) && oldObject.spec.credentials.exists(o, has(o.sealed) && o.sealed == c.sealed)";
    let variables = vec![
        variable("isNew", is_new),
        variable("text", &format!("variables.isNew ? {}{UNSEEN} : ''", text())),
        variable("hasField", &format!("variables.isNew && {}", has_field())),
    ];
    let remedy = "revoke it at its provider, then seal a new one with moorage seal and name it under spec.credentials";
    let in_the_clear = format!("spec.config holds a key in the clear: {remedy}");
    let absent = |pattern: &str| format!("!variables.text.matches({})", literal(pattern));
    // A digest is as long, in hexadecimal digits alone.
    let digest = patterns::LONG_RUN.replace("[A-Za-z0-9]{64}", "[0-9a-f]{64}");
    let no_run = absent(patterns::LONG_RUN);
    let sealed = format!(
        "!has(object.spec) || !has(object.spec.credentials) || object.spec.credentials.all(c, !has(c.sealed) || ({was_there}) || (c.sealed.matches({}) && c.sealed.size() >= {LEAST_SEALED}))",
        literal(SEALED)
    );
    let mut validations = vec![
        validation(
            "!variables.hasField",
            &format!(
                "spec.config has a value in a field for keys: remove it; if it is a key, {remedy}"
            ),
        ),
        validation(
            &format!("{no_run} || variables.text.matches({})", literal(&digest)),
            &in_the_clear,
        ),
        validation(
            &sealed,
            &format!(
                "spec.credentials has a value under sealed that is not sealed: if it is a key, {remedy}"
            ),
        ),
    ];
    let shared = patterns::SHARED.iter();
    validations.extend(shared.map(|(_, pattern)| validation(&absent(pattern), &in_the_clear)));
    policy(
        LITERAL_KEYS,
        rule(GROUP, "*", "openclawinstances"),
        vec![condition("not-being-deleted", NOT_BEING_DELETED)],
        variables,
        validations,
    )
}

fn sealed_credentials() -> ValidatingAdmissionPolicy {
    let data = "dyn(object.data[key])";
    let sealed = format!(
        "object.data.all(key, {data}.matches({}) && {data}.size() >= {LEAST_SEALED})",
        literal(SEALED_DATA)
    );
    let ours = format!("has(object.type) && object.type == '{SEALED_SECRET_TYPE}'");
    policy(
        SEALED_CREDENTIALS,
        rule("", "v1", "secrets"),
        vec![
            condition("of-our-type", &ours),
            condition("not-being-deleted", NOT_BEING_DELETED),
            condition(
                "data-has-changed",
                "has(object.data) && (oldObject == null || !has(oldObject.data) || oldObject.data != object.data)",
            ),
        ],
        Vec::new(),
        vec![validation(
            &sealed,
            "The Secret has a value that is not sealed: if it is a key, revoke it at its provider, then seal a new one with moorage seal",
        )],
    )
}

const NOT_BEING_DELETED: &str = "!has(object.metadata.deletionTimestamp)";
/// The configuration itself, under no name.
const ROOT: &str = "[{'k': dyn(''), 'v': dyn(object.spec.config)}]";

/// All texts of the configuration, names included.
fn text() -> String {
    walk(&|node| format!("string({node}.v)"), "''", &|node, inner, each| {
        format!("{inner}.map({each}, string({each}.k) + {BETWEEN} + {node}).join({BETWEEN})")
    })
}

/// Whether a field for keys holds a text that is none of those which stand for a key.
fn has_field() -> String {
    let is_key = |node: &str| {
        let value = format!("string({node}.v).trim()");
        let is = |pattern: &str| format!("{value}.matches({})", literal(pattern));
        let named = |pattern: &str| format!("string({node}.k).matches({})", literal(pattern));
        let one = format!(
            "({} && !({} && {} && {value}.size() <= {} && {}))",
            is_named(node),
            named(names::API_KEY),
            is_local(node),
            values::LONGEST_DUMMY,
            is(values::DUMMY),
        );
        let several = format!(
            "({} && {} && {} && {})",
            named(names::SEVERAL),
            is("^[A-Za-z0-9_+=-][A-Za-z0-9_+/=.~-]{7,}$"),
            is("[0-9]"),
            is("[A-Za-z]"),
        );
        let credentials =
            format!("({} && !{})", named(names::CREDENTIALS), is("^(?:/|~/|[.]{1,2}/|file:)"));
        let header = format!("({} && {})", named(names::AUTH), is(values::SCHEME));
        let harmless = format!("(?:{}|{}|^$)", values::PLACEHOLDER, values::NO_VALUE);
        format!("(({one} || {several} || {credentials} || {header}) && !{})", is(&harmless))
    };
    walk(&is_key, "false", &|node, inner, each| format!("{inner}.exists({each}, {node})"))
}

/// Whether the name of a field, or what stands beside or above it, says that it holds one key.
fn is_named(node: &str) -> String {
    let says = |name: &str| {
        format!(
            "({name}.matches({}) && !{name}.matches({}))",
            literal(&names::field_pattern()),
            literal(&names::harmless_pattern())
        )
    };
    let (name, above) = (format!("string({node}.k)"), format!("string({node}.p.k)"));
    let beside = format!("string({node}.p.v['name'])");
    format!(
        "({} || ({node}.k in ['value', 'literal', 'plaintext', 'raw'] && {}) || ({node}.k == 'value' && ({node}.p.k == 'auth' || ('name' in {node}.p.v && type({node}.p.v['name']) == string && {}))) || ({node}.k == 'key' && {node}.p.k == 'tls'))",
        says(&name),
        says(&above),
        says(&beside),
    )
}

/// Whether what a field belongs to is a service on the same machine or network.
fn is_local(node: &str) -> String {
    let quoted = |words: &[&str]| {
        let words: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
        format!("[{}]", words.join(", "))
    };
    let address = format!("a in {node}.p.v && type({node}.p.v[a]) == string");
    let addresses = quoted(&search::ADDRESSES);
    format!(
        "({addresses}.exists(a, {address} && string({node}.p.v[a]).matches({})) || ({node}.p.k in {} && !{addresses}.exists(a, {address})))",
        literal(values::LOCAL),
        quoted(&search::LOCAL_PROVIDERS),
    )
}

/// The walk: a text is looked at by `leaf`, the pairs in a map or list by `over`, which gets what is
/// said of each, the pairs, and the name for each.
fn walk(
    leaf: &dyn Fn(&str) -> String,
    nothing: &str,
    over: &dyn Fn(&str, &str, &str) -> String,
) -> String {
    over(&level("n0", 1, leaf, nothing, over), ROOT, "n0")
}

fn level(
    node: &str,
    depth: usize,
    leaf: &dyn Fn(&str) -> String,
    nothing: &str,
    over: &dyn Fn(&str, &str, &str) -> String,
) -> String {
    let is_text = format!("type({node}.v) == string ? {}", leaf(node));
    if depth > DEPTH {
        return format!("({is_text} : {nothing})");
    }
    let each = format!("n{depth}");
    let inner = level(&each, depth + 1, leaf, nothing, over);
    let pairs = format!(
        "(type({node}.v) == map ? {node}.v.map(k, {{'k': dyn(k), 'v': dyn({node}.v[k]), 'p': dyn({node})}}) : type({node}.v) == list ? {node}.v.map(v, {{'k': dyn({node}.k), 'v': dyn(v), 'p': dyn({node}.p)}}) : [])"
    );
    format!("({is_text} : {})", over(&inner, &pairs, &each))
}

/// A text of CEL, without escapes: no pattern has three quotation marks in a row or ends in one.
fn literal(pattern: &str) -> String {
    format!("r\"\"\"{pattern}\"\"\"")
}

fn policy(
    name: &str,
    rule: NamedRuleWithOperations,
    conditions: Vec<MatchCondition>,
    variables: Vec<Variable>,
    validations: Vec<Validation>,
) -> ValidatingAdmissionPolicy {
    ValidatingAdmissionPolicy {
        metadata: named(name),
        spec: Some(ValidatingAdmissionPolicySpec {
            // Where it cannot be evaluated (a document of some hundred kilobytes exceeds the limits of
            // CEL), the operator still refuses; the API server must not stand still over it.
            failure_policy: Some("Ignore".to_owned()),
            match_constraints: Some(MatchResources {
                resource_rules: Some(vec![rule]),
                match_policy: Some("Equivalent".to_owned()),
                ..MatchResources::default()
            }),
            match_conditions: Some(conditions),
            variables: (!variables.is_empty()).then_some(variables),
            validations: Some(validations),
            ..ValidatingAdmissionPolicySpec::default()
        }),
        ..ValidatingAdmissionPolicy::default()
    }
}

fn binding(name: &str) -> ValidatingAdmissionPolicyBinding {
    ValidatingAdmissionPolicyBinding {
        metadata: named(name),
        spec: ValidatingAdmissionPolicyBindingSpec {
            policy_name: name.to_owned(),
            validation_actions: vec!["Deny".to_owned()],
            ..ValidatingAdmissionPolicyBindingSpec::default()
        },
    }
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }
}

/// Subresources are others: a status is never checked.
fn rule(group: &str, version: &str, resource: &str) -> NamedRuleWithOperations {
    let one = |text: &str| Some(vec![text.to_owned()]);
    NamedRuleWithOperations {
        api_groups: one(group),
        api_versions: one(version),
        operations: Some(vec!["CREATE".to_owned(), "UPDATE".to_owned()]),
        resources: one(resource),
        scope: Some("Namespaced".to_owned()),
        ..NamedRuleWithOperations::default()
    }
}

fn condition(name: &str, expression: &str) -> MatchCondition {
    MatchCondition { name: name.to_owned(), expression: expression.to_owned() }
}

fn variable(name: &str, expression: &str) -> Variable {
    Variable { name: name.to_owned(), expression: expression.to_owned() }
}

fn validation(expression: &str, message: &str) -> Validation {
    Validation {
        expression: expression.to_owned(),
        message: Some(message.to_owned()),
        reason: Some("Invalid".to_owned()),
        ..Validation::default()
    }
}
