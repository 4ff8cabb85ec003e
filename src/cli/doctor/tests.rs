use super::*;
use crate::doctor::Finding;

#[test]
fn a_token_is_given_in_a_file_alone() {
    use clap::CommandFactory as _;
    let command = crate::cli::Cli::command();
    let doctor = command.find_subcommand("doctor").unwrap();
    let names: Vec<_> = doctor.get_opts().filter_map(|option| option.get_long()).collect();
    let tokens: Vec<_> = names.into_iter().filter(|name| name.contains("token")).collect();
    assert_eq!(tokens, ["hetzner-token-file", "cloudflare-token-file"]);
}

#[test]
fn a_finding_is_one_line_and_control_characters_do_not_pass() {
    const CHECK: crate::doctor::Check = crate::doctor::Check { id: "a.check", title: "A check" };
    let findings: [Finding; 2] =
        [CHECK.pass("fine").of("x86"), CHECK.fail("no\u{1b}[31m\nsuch", "Make it.")];
    let text = render::text(&findings);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "pass     a.check x86  fine");
    assert!(lines[1].starts_with("fail     a.check      no") && lines[1].ends_with(". Make it"));
    assert_eq!(lines[2], "1 passed, 0 unknown, 0 warnings, 1 failed.");
    assert!(!text.contains('\u{1b}'), "{text:?}");
    let json: serde_json::Value = serde_json::from_str(&render::json(&findings).unwrap()).unwrap();
    assert_eq!(json["verdict"], "fail");
    assert_eq!(json["checks"][0]["subject"], "x86");
    assert_eq!(json["checks"][1]["remedy"], "Make it.");
}
