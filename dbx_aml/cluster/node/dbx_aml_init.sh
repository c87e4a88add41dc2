#!/usr/bin/env bash
# Prepare this node of a Databricks cluster for dbx-aml: add dbx-aml, azureml-mlflow and what the
# runtime lacks of their dependencies with one call of pip, check that MLflow can load them, and set
# the tracking and registry URI for REPLs and executors. Runs on the driver and on every worker.
#
# Reads:  the settings below, which 'dbx-aml cluster init-script' writes into a copy of this file.
#         An environment variable of the cluster (spark_env_vars) overrides a setting:
#           DBX_AML_WHEELHOUSE_PATH
#                                folder that 'dbx-aml cluster wheelhouse' filled; without it pip
#                                downloads the packages of the list in the settings
#           DBX_AML_WHEELHOUSE_SHA256
#                                SHA-256 of its requirements.txt, which has the hash of each wheel;
#                                the script runs no other wheel
#           DBX_AML_ON_FAILURE   "continue" (default): the cluster starts without dbx-aml;
#                                "stop": the cluster does not start
#           DBX_AML_INIT_TIMEOUT_S
#                                longest time of the script in seconds (default 300), whatever hangs
#           DBX_AML_<NAME>       values of the link, see 'dbx-aml link set --help'
#         From runtime 19 on, standard access mode hides these variables from init scripts: attach
#         a copy with settings. A secret is never a setting: a variable of the cluster with the
#         value {{secrets/<scope>/<key>}} brings it to notebooks, and the link refers to it.
# Writes: packages beside the runtime's; below /databricks/dbx_aml the link (config.json) and the
#         marker (marker.json: what was added, seconds of each step, cause of a failure); one marked
#         block of exports in /databricks/spark/conf/spark-env.sh; messages on stderr only. After a
#         failure only the marker stays.
# Exit:   0 prepared, nothing to do, or failed with "continue"; 1 failed with "stop", the last line
#         is the cause; 2 settings that can never work, the last line names the setting.
# Rerun:  safe at any time, also after the script was killed. A second run changes nothing.
set -euo pipefail
# Every user of the node reads what is added, whatever an image or an earlier script has set.
umask 022

# >>> settings >>>
BAKED_WHEELHOUSE_PATH=''
BAKED_WHEELHOUSE_SHA256=''
BAKED_REQUIREMENTS=''
BAKED_ON_FAILURE=''
BAKED_INIT_TIMEOUT_S=''
BAKED_CONFIG=''
# <<< settings <<<

DEFAULT_TIMEOUT_S=300
WHEELHOUSE="${DBX_AML_WHEELHOUSE_PATH:-$BAKED_WHEELHOUSE_PATH}"
WHEELHOUSE_SHA256="${DBX_AML_WHEELHOUSE_SHA256:-$BAKED_WHEELHOUSE_SHA256}"
ON_FAILURE="${DBX_AML_ON_FAILURE:-${BAKED_ON_FAILURE:-continue}}"
TIMEOUT_S="${DBX_AML_INIT_TIMEOUT_S:-${BAKED_INIT_TIMEOUT_S:-$DEFAULT_TIMEOUT_S}}"
# Only tests set these: a root folder, the number of attempts, seconds before the second attempt.
HOME_FOLDER="${TEST_DBX_AML_ROOT:-}/databricks"
MAX_ATTEMPTS="${TEST_DBX_AML_ATTEMPTS:-4}"
BACKOFF_S="${TEST_DBX_AML_BACKOFF_S:-2}"

PYTHON="$HOME_FOLDER/python/bin/python"
MARKER="$HOME_FOLDER/dbx_aml/marker.json"
SPARK_ENV="$HOME_FOLDER/spark/conf/spark-env.sh"
SCRIPT="$(realpath -- "${BASH_SOURCE[0]:-/dev/null}")"
SECRET_VARIABLES='SECRET|TOKEN|PASSWORD|(^|_)KEY$|ACCOUNT_KEY|API_KEY|IDENTITY_HEADER'
SECRET_NAMES='(sig|signature|secret|passw(or)?d|pass|pwd|token|key)'
TEMPORARY_FAILURE=75
# dbx-aml ends with it if a setting is wrong. Python, pip and shells end with 2 for other causes.
WRONG_SETTINGS=78

PREPARE=dbx_aml.cluster.node.prepare
# dbx-aml is not installed yet: Python imports it from the wheel, which is a zip archive.
RUN_FROM_WHEEL='import runpy, sys
sys.path.insert(0, sys.argv.pop(1))
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)'
# Whether an earlier run had the same settings, and all that it has written is still there.
IS_PREPARED='import json, shlex, sys
from importlib.metadata import version
marker = json.load(open(sys.argv[1]))
lines = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in marker["variables"].items())
assert (marker["status"], marker["fingerprint"]) == ("ok", sys.argv[2])
assert all(version(name) == pin for name, pin in marker["installed"].items())
assert lines.encode() in open(sys.argv[3], "rb").read()'

WORK_FOLDER=''
REASON=''

# Print a text without secrets, by the rules of dbx_aml/_common/redact.py: logins in URIs, values in
# queries, tokens, and values of variables that have the name of a secret.
redact() {
    local text="$1" name value
    while read -r name; do
        value="${!name}"
        if ((${#value} >= 8)) && [[ "${name^^}" =~ $SECRET_VARIABLES ]] \
            && [[ ! "${name^^}" =~ ^DBX_AML_|_(FILE|PATH)$ ]]; then
            text="${text//"$value"/***}"
        fi
    done < <(compgen -e)
    sed -E -e 's,(://)[^[:space:]<>]*@,\1***@,g' \
        -e "s/([?&;][[:alnum:]_.-]*$SECRET_NAMES=)[^&[:space:]]+/\1***/Ig" \
        -e "s/((password|_token|_secret|Key|Signature)=)[^;[:space:]]+/\1***/Ig" \
        -e 's/(bearer|basic) +[[:alnum:]_.~+\/-]{16,}=*/\1 ***/Ig' \
        -e 's/eyJ[[:alnum:]_-]{8,}(\.[[:alnum:]_-]*){1,4}/***/g' \
        -e 's/(dapi|dose|dkea)[0-9a-f]{32}(-[0-9]+)?/***/g' \
        -e 's/[[:alnum:]_.~-]{3}[0-9]Q~[[:alnum:]_.~-]{31,}/***/g' \
        -e 's,[[:alnum:]+/]{86}==,***,g' <<<"$text"
}

log() { printf 'dbx-aml: %s\n' "$(redact "$*")" >&2; }

refuse_settings() {
    log "$*"
    exit 2
}

# Refuse settings that fail on every node and in every attempt.
check_settings() {
    [[ "$ON_FAILURE" == continue || "$ON_FAILURE" == stop ]] \
        || refuse_settings "DBX_AML_ON_FAILURE must be 'continue' or 'stop': got '$ON_FAILURE';" \
            "correct it"
    if [[ -z "$BAKED_CONFIG" && -z "$(compgen -v DBX_AML_)" && ! -f "$HOME_FOLDER/config.json" \
        && "${MLFLOW_TRACKING_URI:-}" != *azureml://* ]]; then
        refuse_settings "init script must have settings: got no variable DBX_AML_*, which runtime" \
            "19 hides in standard access mode; attach the output of 'dbx-aml cluster init-script'"
    fi
    [[ "$TIMEOUT_S" =~ ^[1-9][0-9]{0,5}$ ]] \
        || refuse_settings "DBX_AML_INIT_TIMEOUT_S must be a whole number of seconds, 1 or more:" \
            "got '$TIMEOUT_S'; correct it"
    [[ "$WHEELHOUSE" == /* || (-z "$WHEELHOUSE" && -n "$BAKED_REQUIREMENTS") ]] \
        || refuse_settings "DBX_AML_WHEELHOUSE_PATH must be the absolute path of a wheelhouse: got" \
            "'$WHEELHOUSE'; fill one with 'dbx-aml cluster wheelhouse', and attach the output of" \
            "'dbx-aml cluster init-script'"
    [[ -z "$WHEELHOUSE" || "$WHEELHOUSE_SHA256" =~ ^[0-9a-f]{64}$ ]] \
        || refuse_settings "DBX_AML_WHEELHOUSE_SHA256 must be the SHA-256 of the wheelhouse's" \
            "requirements.txt: got '$WHEELHOUSE_SHA256'; attach the output of 'dbx-aml cluster" \
            "init-script'"
}

# Print the content of each file that the link may be read from: the node's own, and the file that
# DBX_AML_CONFIG names, or all that are searched from its folder on (find_config in
# dbx_aml/link/config_file.py).
print_config_files() {
    local folder file
    local -a files=("$HOME_FOLDER/config.json")
    if [[ -d "${DBX_AML_CONFIG:-}" ]]; then
        folder="$(realpath -- "$DBX_AML_CONFIG")"
        while :; do
            files+=("${folder%/}"/{.azureml/,aml_config/,}{config,project}.json)
            [[ "$folder" != / ]] || break
            folder="$(dirname -- "$folder")"
        done
    else
        files+=("${DBX_AML_CONFIG:-/dev/null}")
    fi
    for file in "${files[@]}"; do
        printf 'file\n'
        cat -- "$file" 2>/dev/null || true
    done
}

# Print one hash of the script and of all its settings. Every user of the node may read it in the
# marker, and could test guesses of a secret against it: secrets are left out.
hash_settings() {
    local name
    {
        cat -- "$SCRIPT"
        while read -r name; do
            [[ "$name" == DBX_AML_SECRET_* ]] || printf '%s=%s\n' "$name" "${!name}"
        done < <(compgen -v DBX_AML_)
        printf '%s\n' "${MLFLOW_TRACKING_URI:-}"
        print_config_files
    } | sha256sum | cut -d ' ' -f 1
}

print_runtime() {
    if [[ -n "${DATABRICKS_RUNTIME_VERSION:-}" ]]; then
        printf '%s\n' "$DATABRICKS_RUNTIME_VERSION"
    elif [[ -r "$HOME_FOLDER/DBR_VERSION" ]]; then
        head -n 1 -- "$HOME_FOLDER/DBR_VERSION"
    fi
}

copy_files() {
    cp -- "$@" 2>/dev/null && return
    REASON="$1 must be readable, and $WORK_FOLDER have room for it: copying failed; check both"
    return "$TEMPORARY_FAILURE"
}

# Put the list of hashes and the wheels into the work folder, or set REASON and fail. Only the copies
# are read, after their hashes were checked: others may write to the wheelhouse.
fetch_wheels() {
    local list="$WORK_FOLDER/requirements.txt" wheels="$WORK_FOLDER/wheels" errors
    rm -rf -- "$wheels"
    mkdir -- "$wheels" || return
    if [[ -z "$WHEELHOUSE" ]]; then
        printf '%s\n' "$BAKED_REQUIREMENTS" >"$list"
        if ! errors="$("$PYTHON" -P -m pip download --quiet --disable-pip-version-check --no-input \
            --no-deps --only-binary :all: --require-hashes --dest "$wheels" --requirement "$list" 2>&1)"; then
            printf '%s\n' "$errors" >"$WORK_FOLDER/pip.log"
            REASON="package index must have each wheel of the list: got '${errors##*ERROR: }'; check"
            REASON+=" the index of the nodes and the network"
            return "$TEMPORARY_FAILURE"
        fi
        return
    fi
    if [[ ! -r "$WHEELHOUSE/requirements.txt" ]]; then
        REASON="wheelhouse must have a readable requirements.txt: $WHEELHOUSE has none; fill it"
        REASON+=" with 'dbx-aml cluster wheelhouse', and check the path and its permissions"
        return "$TEMPORARY_FAILURE"
    fi
    copy_files "$WHEELHOUSE/requirements.txt" "$list" || return
    if [[ "$(sha256sum <"$list")" != "$WHEELHOUSE_SHA256  -" ]]; then
        REASON="requirements.txt of the wheelhouse must have the SHA-256 of the script's settings:"
        REASON+=" $WHEELHOUSE was changed; see who may write to it, then detach the cluster and"
        REASON+=" attach it again, or render the script again"
        return 1
    fi
    copy_files "$WHEELHOUSE"/*.whl "$wheels"
}

# Print the path of dbx-aml's wheel in the work folder if it has the hash in the list.
find_own_wheel() {
    local file hash
    hash="$(sed -nE 's/^dbx-aml==[^ ]+ --hash=sha256:([0-9a-f]{64})[[:space:]]*$/\1/p' \
        "$WORK_FOLDER/requirements.txt" 2>/dev/null)" || return
    for file in "$WORK_FOLDER"/wheels/dbx_aml-*.whl; do
        if [[ -f "$file" && "$(sha256sum <"$file")" == "$hash  -" ]]; then
            printf '%s\n' "$file"
            return
        fi
    done
    return 1
}

# Set REASON for a Python that ended without one.
explain_status() {
    local version
    version="$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" \
        || version=none
    if [[ "$version" == none ]] || { [[ "$version" =~ ^3\.([0-9]+)$ ]] && ((BASH_REMATCH[1] >= 11)); }; then
        REASON="dbx-aml must end by itself: got status $1; see the lines above"
    else
        REASON="the cluster's Python must be 3.11 or newer: $PYTHON is $version; choose a newer"
        REASON+=" Databricks Runtime"
    fi
}

# Make one attempt. Errexit is off here and in what it calls, because the caller tests it.
prepare_once() {
    local fingerprint="$1" started wheel status=0
    local -a arguments=()
    started="$(date +%s.%N)"
    if [[ -n "${DBX_AML_CONFIG:-}" && ! -e "$DBX_AML_CONFIG" ]]; then
        REASON="DBX_AML_CONFIG must be a file or folder: $DBX_AML_CONFIG is none; check the path and"
        REASON+=" its permissions"
        return "$TEMPORARY_FAILURE"
    fi
    fetch_wheels || return
    if ! wheel="$(find_own_wheel)"; then
        REASON="wheelhouse must hold dbx-aml's wheel with the hash in its requirements.txt:"
        REASON+=" $WHEELHOUSE does not; fill it again with 'dbx-aml cluster wheelhouse'"
        return 1
    fi
    [[ "${DB_IS_DRIVER:-}" != TRUE ]] || arguments+=(--is-driver)
    if [[ -n "$BAKED_CONFIG" && -z "${DBX_AML_CONFIG:-}" ]]; then
        printf '%s\n' "$BAKED_CONFIG" >"$WORK_FOLDER/config.json"
        arguments+=(--config "$WORK_FOLDER/config.json")
    fi
    "$PYTHON" -P -c "$RUN_FROM_WHEEL" "$wheel" "$PREPARE" --home "$HOME_FOLDER" \
        --work-folder "$WORK_FOLDER" --packages-from "${WHEELHOUSE:+wheelhouse }${WHEELHOUSE:-package index}" \
        --runtime "$(print_runtime)" --fingerprint "$fingerprint" --started "$started" \
        "${arguments[@]}" >&2 || status=$?
    if ((status != 0)) && [[ ! -e "$WORK_FOLDER/reason" ]]; then
        explain_status "$status"
        return 1
    fi
    return "$status"
}

# Prepare the node unless it is prepared already; leave the cause of a failure in the work folder.
# The caller ends this process when the time is over.
prepare() {
    local attempt status wait_s fingerprint
    fingerprint="$(hash_settings)"
    # Python and pip would read files of the current folder.
    cd -- "$WORK_FOLDER"
    if [[ -f "$MARKER" ]] \
        && "$PYTHON" -P -c "$IS_PREPARED" "$MARKER" "$fingerprint" "$SPARK_ENV" 2>/dev/null; then
        log "nothing to do: the node is prepared, see $MARKER"
        return
    fi
    for ((attempt = 1; ; attempt++)); do
        status=0
        prepare_once "$fingerprint" || status=$?
        ((status == TEMPORARY_FAILURE && attempt < MAX_ATTEMPTS)) || break
        wait_s=$((BACKOFF_S * 2 ** (attempt - 1)))
        log "attempt $attempt of $MAX_ATTEMPTS failed, next in $wait_s s: $REASON"
        sleep "$wait_s"
    done
    ((status != 0)) || log "done in $SECONDS s, see $MARKER"
    [[ -z "$REASON" ]] || printf '%s' "$REASON" >"$WORK_FOLDER/reason"
    exit "$status"
}

# Remove what was added, and write the marker of a failure with REASON.
roll_back() {
    local wheel time reason
    local -a program=(-m "$PREPARE")
    if wheel="$(find_own_wheel)"; then
        program=(-c "$RUN_FROM_WHEEL" "$wheel" "$PREPARE")
    fi
    REASON="$(redact "$REASON")"
    if [[ -f "$MARKER" ]]; then
        # Python and pip would read files of the current folder.
        (cd / && run_within "$((TIMEOUT_S / 5 + 1))" "$PYTHON" -P "${program[@]}" --home "$HOME_FOLDER" \
            --work-folder "${WORK_FOLDER:-/}" --roll-back "$REASON" >&2) && return
    fi
    time="$(date -u +%FT%TZ)"
    reason="${REASON//[\\\"]/\'}"
    if ! { mkdir -p -- "${MARKER%/*}" \
        && printf '{"status": "failed", "reason": "%s", "time": "%s"}\n' \
            "${reason//[[:cntrl:]]/ }" "$time" >"$MARKER.new" \
        && mv -- "$MARKER.new" "$MARKER"; }; then
        log "marker must be writable: $MARKER is not; check the node's disk"
    fi
}

# Run a command, and end it and all that it has started after some seconds.
run_within() {
    local child status=0
    timeout --kill-after=2 "$@" &
    child=$!
    trap 'kill -- "$child" && wait "$child" || true' TERM INT HUP
    wait "$child" || status=$?
    trap - TERM INT HUP
    return "$status"
}

main() {
    local status=0
    check_settings
    if [[ "${1:-}" == --prepare ]]; then
        WORK_FOLDER="$2"
        prepare
        return
    fi
    if WORK_FOLDER="$(mktemp -d 2>&1)"; then
        trap 'rm -rf -- "$WORK_FOLDER"' EXIT
        # The last fifth of the time is for the roll-back.
        run_within "$((TIMEOUT_S - TIMEOUT_S / 5))" bash "$SCRIPT" --prepare "$WORK_FOLDER" || status=$?
        ((status != 0)) || return 0
        REASON="$(cat -- "$WORK_FOLDER/reason" 2>/dev/null || true)"
        if [[ -z "$REASON" ]] && ((status < 124)); then
            REASON="$WORK_FOLDER must be writable and have room for it: got status $status; check the"
            REASON+=" node's disk"
        elif [[ -z "$REASON" ]]; then
            REASON="the init script must end within $TIMEOUT_S s: it was ended with status $status; see"
            REASON+=" the lines above, or raise DBX_AML_INIT_TIMEOUT_S"
        fi
        roll_back
    else
        REASON="a temporary folder must be writable: got '${WORK_FOLDER##*: }'; check the node's disk"
        WORK_FOLDER=''
        roll_back
    fi
    if ((status == WRONG_SETTINGS)); then
        refuse_settings "$REASON"
    fi
    if [[ "$ON_FAILURE" == stop ]]; then
        log "$REASON"
        exit 1
    fi
    log "the cluster starts without dbx-aml: $REASON"
}

main "$@"
