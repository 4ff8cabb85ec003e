//! Tests of `seal`.

use async_trait::async_trait;

use super::*;
use crate::credentials::{
    bundle::{InstanceRef, read_secret},
    courier::needed_key,
    key_ring::KeyRing,
    secret_source::{CredentialEntry, SecretView, parse_entries, parse_envelope},
    test_keys::{self, ANTHROPIC, ring_key},
};
use clap::Parser;
use rstest::rstest;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    seal: SealArgs,
}

fn parse(options: &[&str]) -> Result<SealArgs, clap::Error> {
    let namespace: &[&str] =
        if options.contains(&"--namespace") { &[] } else { &["--namespace", "tenants"] };
    let all = [&["seal"], namespace, options].concat();
    Command::try_parse_from(all).map(|command| command.seal)
}

/// A cluster whose pool has the certificate of key 0, whose agent has that of key 1, and whose operator
/// publishes that of key 2.
struct Cluster;

/// The same for somebody who may read neither pools nor instances.
struct Tenants;

#[async_trait]
impl CertificateSource for Tenants {
    async fn published(&self, namespace: &str) -> Result<String, ClusterReadError> {
        Cluster.published(namespace).await
    }

    async fn of_pool(&self, pool: &str) -> Result<String, ClusterReadError> {
        Err(ClusterReadError::Forbidden { what: format!("HostingPool {pool}") })
    }

    async fn of_agent(&self, _: &str, instance: &str) -> Result<String, ClusterReadError> {
        Err(ClusterReadError::Forbidden { what: format!("OpenClawInstance {instance}") })
    }
}

#[async_trait]
impl CertificateSource for Cluster {
    async fn published(&self, namespace: &str) -> Result<String, ClusterReadError> {
        let what = format!("ConfigMap in {namespace}");
        if namespace == "moorage-system" {
            Ok(pem(2))
        } else {
            Err(ClusterReadError::NotFound { what })
        }
    }

    async fn of_pool(&self, pool: &str) -> Result<String, ClusterReadError> {
        let what = format!("HostingPool {pool}");
        if pool == "eu-1" { Ok(pem(0)) } else { Err(ClusterReadError::NotFound { what }) }
    }

    async fn of_agent(&self, _: &str, _: &str) -> Result<String, ClusterReadError> {
        Ok(pem(1))
    }
}

fn pem(number: usize) -> String {
    test_keys::key(number).certificate().pem().to_owned()
}

/// Runs the command in the first days of the test keys, which are made in 1970.
async fn run_then(options: &[&str], stdin: &str) -> Result<SealOutput, SealError> {
    let args = parse(options).unwrap_or_else(|error| panic!("{error}"));
    check_names(&args)?;
    let environment = |name: &str| (name == "KEY").then(|| ANTHROPIC.into());
    let (values, notes) = collect(&args.values, &mut stdin.as_bytes(), &environment)?;
    let certificate = args.read_certificate(&Cluster).await?;
    seal(&args, values, notes, &certificate, Timestamp::UNIX_EPOCH)
}

const SECRET: [&str; 6] = ["--instance", "ada", "--name", "ada-keys", "--pool", "eu-1"];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&SECRET, more].concat()
}

#[tokio::test]
async fn the_manifest_is_one_that_the_operator_takes() {
    let output =
        run_then(&with(&["--from-file", "anthropic=-", "--from-env", "second=KEY"]), ANTHROPIC)
            .await
            .unwrap();
    let secret: KubeSecret = serde_saphyr::from_str(&output.text).unwrap();
    assert!(output.text.contains("apiVersion: v1\nkind: Secret\n"), "{}", output.text);
    let view = SecretView::from(secret);
    let entry = |name| CredentialEntry {
        name,
        r#type: "AnthropicApiKey",
        secret_ref: Some(("ada-keys", name)),
        ..CredentialEntry::default()
    };
    let (requests, _) = parse_entries(&[entry("anthropic"), entry("second")]);
    let instance =
        InstanceRef { namespace: "tenants", name: "ada", created: Timestamp::UNIX_EPOCH };
    let bundle = read_secret(instance, "ada-keys", Some(&view), &requests);
    assert_eq!(bundle.refusals().count(), 0);
    let ring = KeyRing::new([ring_key(0, "1970-01-01T00:00:00Z")], []);
    let fingerprint = test_keys::key(0).certificate().fingerprint();
    for value in bundle.values.values() {
        let value = value.as_ref().unwrap();
        assert_eq!(needed_key(value, &ring), Some(fingerprint));
        assert_eq!(value.sealed_with, Some(fingerprint));
    }
}

#[rstest]
#[case::raw(&["--raw", "--name", "ada-keys", "--pool", "eu-1"], "tenants/ada-keys", 0)]
#[case::inline(&["--inline", "--instance", "ada", "--pool", "eu-1"], "tenants/ada", 0)]
#[case::to_agent(&["--inline", "--instance", "ada", "--to-agent"], "tenants/ada", 1)]
#[tokio::test]
async fn a_single_value_is_bound_to_the_place_that_it_is_for(
    #[case] options: &[&str],
    #[case] label: &str,
    #[case] key: usize,
) {
    let options = [options, &["--from-file", "anthropic=-"]].concat();
    let output = run_then(&options, "value\r\n").await.unwrap();
    let envelope = parse_envelope(&Secret::from(output.text)).unwrap();
    assert_eq!(test_keys::key(key).unseal(&envelope, label).unwrap().expose(), b"value");
    assert_eq!(output.notes, ["the line end after the value of anthropic was removed"]);
}

#[rstest]
#[case::published(&[], 2)]
#[case::pool(&["--pool", "eu-1"], 2)]
#[tokio::test]
async fn whoever_may_not_read_pools_seals_to_what_is_published(
    #[case] options: &[&str],
    #[case] key: usize,
) {
    let args =
        parse(&[&["--raw", "--name", "ada-keys", "--from-literal", "a=b"], options].concat());
    let found = args.unwrap().read_certificate(&Tenants).await.unwrap();
    assert_eq!(found.pem, pem(key));
}

#[rstest]
#[case::elsewhere(&["--operator-namespace", "elsewhere"], "--cert")]
#[case::to_agent(&["--to-agent", "--instance", "ada"], "You may not read OpenClawInstance ada. Ask")]
#[tokio::test]
async fn what_may_not_be_read_is_told_with_what_to_do(
    #[case] options: &[&str],
    #[case] says: &str,
) {
    let base = ["--inline", "--instance", "ada", "--from-literal", "a=b"];
    let base = if options.contains(&"--instance") { &base[..1] } else { &base[..3] };
    let args = parse(&[base, &["--from-literal", "a=b"], options].concat()).unwrap();
    let error = args.read_certificate(&Tenants).await.err().unwrap().to_string();
    assert!(error.contains(says) && !error.contains('{'), "{error}");
}

#[rstest]
#[case::nothing(&[], "nothing to seal")]
#[case::no_key(&["--from-literal", "sk-ant-secret"], "KEY=VALUE")]
#[case::bad_key(&["--from-literal", "a/b=sk-ant-secret"], "KEY=VALUE")]
#[case::empty(&["--from-file", "a=-"], "empty")]
#[case::unset(&["--from-env", "a=UNSET"], "UNSET")]
#[case::no_file(&["--from-file", "a=/nowhere/key"], "/nowhere/key")]
#[case::twice(&["--from-literal", "a=sk-ant-secret", "--from-env", "a=KEY"], "more than once")]
#[case::format(&["--from-literal", "a=sk-ant-secret", "--type", "a=AnthropicApiKey"], "AnthropicApiKey")]
#[case::type_unknown(&["--from-env", "a=KEY", "--type", "a=Other"], "the types are")]
#[case::type_alone(&["--from-env", "a=KEY", "--type", "b=OpenAiApiKey"], "no value")]
#[case::two_raw(&["--raw", "--from-env", "a=KEY", "--from-env", "b=KEY"], "2 are given")]
#[tokio::test]
async fn what_cannot_be_sealed_is_refused_without_showing_it(
    #[case] more: &[&str],
    #[case] about: &str,
) {
    let error = run_then(&with(more), "").await.unwrap_err().to_string();
    assert!(error.contains(about), "{error}");
    assert!(!error.contains("sk-ant-secret"), "{error}");
}

#[tokio::test]
async fn a_literal_is_sealed_with_a_warning() {
    let output = run_then(&with(&["--from-literal", "a=value"]), "").await.unwrap();
    assert!(output.notes[0].contains("history"), "{:?}", output.notes);
    assert!(!output.text.contains("value"), "{}", output.text);
}

#[tokio::test]
async fn a_sealed_value_is_not_sealed_again() {
    let options = ["--raw", "--name", "n", "--pool", "eu-1", "--from-file", "a=-"];
    let sealed = run_then(&options, "value").await.unwrap().text;
    let error = run_then(&options, &sealed).await.unwrap_err();
    assert!(matches!(error, SealError::SealedAlready(_)), "{error}");
}

#[tokio::test]
async fn an_expired_certificate_and_one_that_is_none_are_refused() {
    let args = parse(&with(&["--from-env", "a=KEY"])).unwrap_or_else(|error| panic!("{error}"));
    let value = || BTreeMap::from([("a".to_owned(), Secret::from("value".to_owned()))]);
    let late = "1970-03-01T00:00:00Z".parse().unwrap();
    let found = |pem| FoundCertificate { from: "here".into(), pem };
    let error = seal(&args, value(), vec![], &found(pem(0)), late).unwrap_err().to_string();
    assert!(error.contains("expired on 1970-02-15"), "{error}");
    let error = seal(&args, value(), vec![], &found("-----".into()), late).unwrap_err();
    assert!(matches!(error, SealError::InvalidCertificate(_)), "{error}");
}

#[tokio::test]
async fn a_certificate_is_read_from_a_file_or_local_http() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cert.pem");
    std::fs::write(&path, pem(0)).unwrap();

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/v1/cert.pem", listener.local_addr().unwrap());
    let certificate = axum::routing::get(async || pem(0));
    let router = axum::Router::new().route("/v1/cert.pem", certificate);
    let server = tokio::spawn(axum::serve(listener, router).into_future());

    for cert in [path.to_str().unwrap(), &address] {
        let options = ["--raw", "--name", "n", "--cert", cert, "--from-env", "a=KEY"];
        run_then(&options, "").await.unwrap_or_else(|error| panic!("{cert}: {error}"));
    }
    let missing = address.replace("cert.pem", "other.pem");
    let options = ["--raw", "--name", "n", "--cert", &missing, "--from-env", "a=KEY"];
    let error = run_then(&options, "").await.unwrap_err();
    assert!(matches!(error, SealError::UnreadableCertificate { .. }), "{error}");
    server.abort();
}

#[rstest]
#[case("http://moorage.example.com/v1/cert.pem")]
#[case("HTTP://192.0.2.1/v1/cert.pem")]
#[tokio::test]
async fn plain_http_from_another_machine_is_refused(#[case] cert: &str) {
    let options = ["--raw", "--name", "n", "--cert", cert, "--from-env", "a=KEY"];
    let error = run_then(&options, "").await.unwrap_err();
    assert!(matches!(error, SealError::PlainHttp(_)), "{error}");
}

#[rstest]
#[case::pool_and_agent(&["--name", "n", "--instance", "i", "--pool", "p", "--to-agent"])]
#[case::two_certificates(&["--name", "n", "--instance", "i", "--pool", "p", "--cert", "c"])]
#[case::no_name(&["--instance", "i", "--pool", "p"])]
#[case::no_instance(&["--name", "n", "--pool", "p"])]
#[case::inline_without_instance(&["--inline", "--pool", "p"])]
#[case::inline_with_name(&["--inline", "--instance", "i", "--name", "n", "--pool", "p"])]
fn options_that_do_not_fit_together_are_refused(#[case] options: &[&str]) {
    assert!(parse(options).is_err());
}

#[rstest]
#[case(&["--raw", "--name", "Ada", "--pool", "p"], "name")]
#[case(&["--raw", "--name", "a..b", "--pool", "p"], "name")]
#[case(&["--inline", "--instance", "a_b", "--pool", "p"], "instance")]
#[case(&["--inline", "--instance", "a", "--pool", "p", "--namespace", "a.b"], "namespace")]
fn names_that_kubernetes_does_not_take_are_refused(
    #[case] options: &[&str],
    #[case] expected: &str,
) {
    let args = parse(options).unwrap_or_else(|error| panic!("{error}"));
    let Err(SealError::InvalidName { option, .. }) = check_names(&args) else {
        panic!("{options:?} was taken");
    };
    assert_eq!(option, expected);
}

#[test]
fn errors_say_which_certificates_cannot_be_asked_for_together() {
    let options = ["--name", "n", "--instance", "i", "--pool", "p", "--cert", "c"];
    let error = parse(&options).err().unwrap().to_string();
    assert!(error.contains("--pool") && error.contains("--cert"), "{error}");
}
