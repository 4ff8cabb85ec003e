#!/bin/sh
# Stands in for OpenClaw's command line: rejects a configuration with the key "unknownKey", and, as the
# real one may, repeats values of it in its messages. Counts what it was asked for in its state folder. With
# the file "takes-up" it says that it uses its configuration, but not when it is asked for the first time.
set -u
case "$*" in
"config validate --json")
    echo validate >>"$OPENCLAW_STATE_DIR/calls"
    if grep -q '"unknownKey"' "$OPENCLAW_CONFIG_PATH"; then
        cat "$OPENCLAW_CONFIG_PATH" >&2
        printf '{"valid":false,"issues":[{"path":"agents.unknownKey","message":"got hunter2-in-config"}]}\n'
        exit 1
    fi
    printf '{"valid":true,"issues":[]}\n'
    ;;
"secrets reload --json") echo reload >>"$OPENCLAW_STATE_DIR/calls" ;;
"backup create --verify --json --output "*)
    echo backup >>"$OPENCLAW_STATE_DIR/calls"
    [ ! -e "$OPENCLAW_STATE_DIR/no-backup" ] || exit 1
    archive="$6/$$.tar.gz"
    : >"$archive"
    printf '{"archivePath":"%s","verified":true}\n' "$archive"
    ;;
"gateway call config.get --params {} --json")
    [ -e "$OPENCLAW_STATE_DIR/takes-up" ] || exit 64
    echo config.get >>"$OPENCLAW_STATE_DIR/calls"
    [ "$(grep -cx config.get "$OPENCLAW_STATE_DIR/calls")" -gt 1 ] || exit 1
    echo '{"configRevisionHash":"a","appliedConfigHash":"a"}'
    ;;
"devices list --json")
    echo list >>"$OPENCLAW_STATE_DIR/calls"
    cat "$OPENCLAW_STATE_DIR/devices"
    ;;
"devices approve refused --json") exit 1 ;;
"devices approve "*" --json")
    echo "approve $3" >>"$OPENCLAW_STATE_DIR/calls"
    echo '{}'
    ;;
"security audit --json")
    echo audit >>"$OPENCLAW_STATE_DIR/calls"
    [ ! -e "$OPENCLAW_STATE_DIR/no-audit" ] || exit 1
    echo '{"summary":{"critical":2,"warn":1}}'
    ;;
"plugins list --json") echo '{"plugins":[]}' ;;
"skills install "*" --as "*" --global --force")
    echo skill >>"$OPENCLAW_STATE_DIR/calls"
    mkdir -p "$OPENCLAW_STATE_DIR/skills"
    rm -rf "$OPENCLAW_STATE_DIR/skills/$5"
    cp -R "$3" "$OPENCLAW_STATE_DIR/skills/$5"
    ;;
"--version") echo "OpenClaw 2026.9.6 (abcdef)" ;;
*) exit 64 ;;
esac
