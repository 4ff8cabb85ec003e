use clap::Parser as _;
use rstest::rstest;

use super::*;
use crate::cli::{Cli, Command};

fn parse(arguments: &[&str]) -> Result<RunArgs, clap::Error> {
    let all = ["moorage", "run"].iter().chain(arguments);
    match Cli::try_parse_from(all)?.command {
        Command::Run(args) => Ok(*args),
        _ => panic!("not run"),
    }
}

#[tokio::test]
async fn the_defaults_are_the_documented_ones() {
    let settings = parse(&[]).unwrap().read().await.unwrap();
    let defaults = Intervals::default();
    assert_eq!(settings.intervals.sweep, defaults.sweep);
    assert_eq!(settings.intervals.report, defaults.report);
    assert_eq!(settings.intervals.routes, defaults.routes);
    assert_eq!(settings.master_key, MasterKeySource::Secret);
    assert_eq!(settings.controllers.pools, None);
    assert!(settings.leader_elect);
}

#[tokio::test]
async fn lists_are_split_at_commas_and_empty_ones_mean_everything() {
    let args = parse(&["--pools=eu-1,us-1", "--watch-namespaces=", "--leader-elect=false"]);
    let settings = args.unwrap().read().await.unwrap();
    let pools: Vec<_> = settings.controllers.pools.unwrap().into_iter().collect();
    assert_eq!(pools, ["eu-1", "us-1"]);
    assert!(settings.controllers.watch_namespaces.is_empty());
    assert!(!settings.leader_elect);
}

#[rstest]
#[case("90s", Some(90))]
#[case("5m", Some(300))]
#[case("1h", Some(3600))]
#[case("1h 30m", Some(5400))]
#[case("0s", None)]
#[case("-5m", None)]
#[case("500ms", None)]
#[case("30d", None)]
#[case("often", None)]
fn an_interval_is_a_time_within_bounds(#[case] text: &str, #[case] seconds: Option<u64>) {
    assert_eq!(interval(text).ok(), seconds.map(Duration::from_secs));
}

#[tokio::test]
async fn a_file_that_is_not_there_is_named_with_its_option() {
    let args = parse(&["--edge-ca=/nowhere/ca.pem"]).unwrap();
    let error = args.read().await.err().unwrap().to_string();
    assert!(error.contains("--edge-ca /nowhere/ca.pem"), "{error}");
}

#[tokio::test]
async fn an_edge_address_without_a_port_is_explained() {
    let args = parse(&["--edge-address=127.0.0.1"]).unwrap();
    let error = args.read().await.err().unwrap().to_string();
    assert!(error.contains("host and a port"), "{error}");
    let args = parse(&["--edge-address=127.0.0.1:8443"]).unwrap();
    let edge = args.read().await.unwrap().edge;
    assert_eq!(edge.address, Some("127.0.0.1:8443".parse().unwrap()));
}
