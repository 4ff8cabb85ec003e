#!/bin/sh
# Stands in for OpenClaw's command line: rejects a configuration with the key "unknownKey", and, as the
# real one may, repeats values of it in its messages. Counts what it was asked for in its state folder.
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
"secrets reload") echo reload >>"$OPENCLAW_STATE_DIR/calls" ;;
"--version") echo "OpenClaw 2026.9.6 (abcdef)" ;;
*) exit 64 ;;
esac
