#!/usr/bin/env bash
# Prepare this node of a Databricks cluster for dbx-aml: add dbx-aml and azureml-mlflow to the
# cluster's Python without changing anything that the runtime brought, prove that they work, and
# tell REPLs and executors who tracks and who registers. Runs on the driver and on every worker.
#
# Reads:  the settings below, which 'dbx-aml cluster init-script' writes into a copy of this file.
#         A variable of the cluster (spark_env_vars) goes first:
#           DBX_AML_WHEELHOUSE_PATH
#                                folder that 'dbx-aml cluster wheelhouse' filled; without one, pip's
#                                package index is used, with pip's own settings
#           DBX_AML_ON_FAILURE   "continue" (default): the cluster starts, the marker says why;
#                                "stop": the cluster does not start
#           DBX_AML_<NAME>       values of the link, see 'dbx-aml link set --help'
#         From runtime 19 on, standard access mode hides these variables from init scripts: render.
#         A secret is never a setting. It reaches notebooks as a variable of the cluster whose value
#         is {{secrets/<scope>/<key>}}; the link only says where it is.
# Writes: packages beside the cluster's own; below /databricks/dbx_aml config.json (the link) and
#         marker.json (the marker: what was done, how long it took, what failed and why); one marked
#         block of exports in /databricks/spark/conf/spark-env.sh; messages on stderr only.
# Exit:   0 done, nothing to do, or failed with "continue"; 1 failed with "stop", the last line says
#         why; 2 settings that can never work, the last line says which.
# Again:  safe at any time, also after it was killed. Once done, a second run changes nothing.
set -euo pipefail

# What the index is asked for. A wheelhouse has its own.
VERSION=0.1.0

# >>> settings >>>
BAKED_WHEELHOUSE_PATH=''
BAKED_ON_FAILURE=''
BAKED_CONFIG=''
# <<< settings <<<

WHEELHOUSE="${DBX_AML_WHEELHOUSE_PATH:-$BAKED_WHEELHOUSE_PATH}"
ON_FAILURE="${DBX_AML_ON_FAILURE:-${BAKED_ON_FAILURE:-continue}}"
# Only tests set these: a folder in the place of /, attempts, seconds until the second of them.
HOME_FOLDER="${TEST_DBX_AML_ROOT:-}/databricks"
ATTEMPTS="${TEST_DBX_AML_ATTEMPTS:-4}"
BACKOFF_S="${TEST_DBX_AML_BACKOFF_S:-2}"

PYTHON="$HOME_FOLDER/python/bin/python"
MARKER="$HOME_FOLDER/dbx_aml/marker.json"
SCRIPT="$(realpath -- "${BASH_SOURCE[0]:-/dev/null}")"
# After so many seconds no new attempt is started.
PATIENCE_S=600
TRY_AGAIN=75
WRONG_SETTINGS=2

# dbx-aml is not installed yet: its wheel is a folder of modules as it is.
NODE=dbx_aml.cluster.node.prepare
RUN_FROM_WHEEL='import runpy, sys
sys.path.insert(0, sys.argv.pop(1))
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)'

FINGERPRINT=''
WORK=''
WHEEL=''
REASON=''

log() { printf 'dbx-aml: %s\n' "$*" >&2; }

clean_up() { [[ -z "$WORK" ]] || rm -rf -- "$WORK"; }

refuse() {
    log "$*"
    exit "$WRONG_SETTINGS"
}

# Refuse what no later attempt and no other node could make work.
check_settings() {
    [[ "$ON_FAILURE" == continue || "$ON_FAILURE" == stop ]] \
        || refuse "DBX_AML_ON_FAILURE must be 'continue' or 'stop': got '$ON_FAILURE'; write it anew"
    [[ -z "$WHEELHOUSE" || "$WHEELHOUSE" == /* ]] \
        || refuse "DBX_AML_WHEELHOUSE_PATH must be an absolute path: got '$WHEELHOUSE';" \
            "use /Volumes/... or /Workspace/..."
    if [[ -z "$BAKED_CONFIG" && -z "$(compgen -v DBX_AML_)" && ! -f "$HOME_FOLDER/config.json" \
        && "${MLFLOW_TRACKING_URI:-}" != *azureml://* ]]; then
        refuse "init script must be told its settings: got no variable DBX_AML_*, which runtime 19" \
            "hides in standard access mode; attach what 'dbx-aml cluster init-script' writes"
    fi
}

# One hash of everything that decides what this script does here.
fingerprint() {
    local name
    {
        cat -- "$SCRIPT"
        while read -r name; do
            printf '%s=%s\n' "$name" "${!name}"
        done < <(compgen -v DBX_AML_)
        printf '%s\n' "${MLFLOW_TRACKING_URI:-}"
        cat -- "$WHEELHOUSE/requirements.txt" "${DBX_AML_CONFIG:-/dev/null}" 2>/dev/null || true
    } | sha256sum | cut -d ' ' -f 1
}

runtime() {
    if [[ -n "${DATABRICKS_RUNTIME_VERSION:-}" ]]; then
        printf '%s\n' "$DATABRICKS_RUNTIME_VERSION"
    elif [[ -r "$HOME_FOLDER/DBR_VERSION" ]]; then
        head -n 1 -- "$HOME_FOLDER/DBR_VERSION"
    fi
}

# Set WHEEL to a copy of dbx-aml's wheel, which the rest of the work is done from; else REASON.
fetch_from_wheelhouse() {
    local file hash requirements
    if ! requirements="$(cat -- "$WHEELHOUSE/requirements.txt" 2>/dev/null)"; then
        REASON="wheelhouse must have a readable requirements.txt: $WHEELHOUSE has none; fill it"
        REASON+=" with 'dbx-aml cluster wheelhouse', and check the path and who may read it"
        return "$TRY_AGAIN"
    fi
    for file in "$WHEELHOUSE"/dbx_aml-*.whl; do
        [[ -f "$file" ]] || continue
        WHEEL="$WORK/${file##*/}"
        if ! cp -- "$file" "$WHEEL" 2>/dev/null || ! hash="$(sha256sum <"$WHEEL")"; then
            REASON="$file must be readable, and $WORK have room for it: copying failed; look at both"
            return "$TRY_AGAIN"
        fi
        [[ "$requirements" == *"sha256:${hash%% *}"* ]] && return
    done
    REASON="wheelhouse must hold dbx-aml's wheel with the hash in its requirements.txt:"
    REASON+=" $WHEELHOUSE does not; fill it anew with 'dbx-aml cluster wheelhouse'"
    return 1
}

fetch_from_index() {
    local said
    if ! said="$("$PYTHON" -P -m pip download --quiet --disable-pip-version-check --no-input \
        --retries 1 --no-deps --only-binary :all: --dest "$WORK" "dbx-aml==$VERSION" 2>&1)"; then
        # Without the credentials that an index's address may have.
        said="$(sed -e 's,://[^/@[:space:]]*@,://,g' -e 's/^ERROR: //' <<<"$said" | tail -n 1)"
        REASON="package index must have dbx-aml $VERSION: got '${said:-no answer}'; check the index"
        REASON+=" and the network, or set DBX_AML_WHEELHOUSE_PATH"
        return "$TRY_AGAIN"
    fi
    WHEEL="$(printf '%s\n' "$WORK"/dbx_aml-*.whl)"
}

# Do everything once; status TRY_AGAIN where waiting may help. Errexit is off here and in fetch.
attempt() {
    local started status=0
    local -a more=()
    started="$(date +%s.%N)"
    rm -f -- "$WORK/reason"
    if [[ -n "${DBX_AML_CONFIG:-}" && ! -e "$DBX_AML_CONFIG" ]]; then
        REASON="DBX_AML_CONFIG must be a file or folder: $DBX_AML_CONFIG is none; check the path and"
        REASON+=" who may read it"
        return "$TRY_AGAIN"
    fi
    if [[ -n "$WHEELHOUSE" ]]; then
        fetch_from_wheelhouse || return
        more+=(--wheelhouse "$WHEELHOUSE")
    else
        fetch_from_index || return
    fi
    [[ "${DB_IS_DRIVER:-}" != TRUE ]] || more+=(--is-driver)
    if [[ -n "$BAKED_CONFIG" && -z "${DBX_AML_CONFIG:-}" ]]; then
        printf '%s\n' "$BAKED_CONFIG" >"$WORK/config.json"
        more+=(--config "$WORK/config.json")
    fi
    "$PYTHON" -P -c "$RUN_FROM_WHEEL" "$WHEEL" "$NODE" --home "$HOME_FOLDER" --work "$WORK" \
        --wheel "$WHEEL" --runtime "$(runtime)" --fingerprint "$FINGERPRINT" \
        --started "$started" "${more[@]}" >&2 || status=$?
    if ((status != 0)) && ! REASON="$(cat -- "$WORK/reason" 2>/dev/null)"; then
        REASON="dbx-aml must end by itself: got status $status; see the lines above"
    fi
    return "$status"
}

attempts() {
    local number status wait_s
    if ! WORK="$(mktemp -d 2>&1)"; then
        REASON="a temporary folder must be writable: got '${WORK##*: }'; look at the node's disk"
        WORK=''
        return 1
    fi
    # Away from the files of wherever this was started, which Python and pip would read.
    cd -- "$WORK" || return
    for ((number = 1; ; number++)); do
        status=0
        attempt || status=$?
        ((status == TRY_AGAIN && number < ATTEMPTS && SECONDS < PATIENCE_S)) || return "$status"
        wait_s=$((BACKOFF_S * 2 ** (number - 1)))
        log "attempt $number of $ATTEMPTS failed, next in $wait_s s: $REASON"
        sleep "$wait_s"
    done
}

# Write the marker of a failure that came before dbx-aml itself could write one.
mark_failed() {
    local now reason="${REASON//[\\\"]/\'}"
    [[ -z "$WORK" || ! -e "$WORK/reason" ]] || return 0
    # Killed while it changed packages: the next run reads there which.
    [[ "$(cat -- "$MARKER" 2>/dev/null)" != *'"status": "started"'* ]] || return 0
    now="$(date -u +%FT%TZ)"
    mkdir -p -- "${MARKER%/*}" \
        && printf '{"status": "failed", "reason": "%s", "version": "%s", "time": "%s"}\n' \
            "${reason//[[:cntrl:]]/ }" "$VERSION" "$now" >"$MARKER.new" \
        && mv -- "$MARKER.new" "$MARKER"
}

main() {
    local status=0
    check_settings
    FINGERPRINT="$(fingerprint)"
    if [[ -f "$MARKER" ]] && "$PYTHON" -P -m "$NODE" --is-done --home "$HOME_FOLDER" \
        --fingerprint "$FINGERPRINT" 2>/dev/null; then
        log "nothing to do: $MARKER says what was done"
        return
    fi
    trap clean_up EXIT
    attempts || status=$?
    if ((status == 0)); then
        log "done in $SECONDS s, see $MARKER"
        return
    fi
    mark_failed || log "marker must be writable: $MARKER is not; look at the node's disk"
    if ((status == WRONG_SETTINGS)); then
        refuse "$REASON"
    fi
    if [[ "$ON_FAILURE" == stop ]]; then
        log "$REASON"
        exit 1
    fi
    log "the cluster starts without dbx-aml: $REASON"
}

main "$@"
