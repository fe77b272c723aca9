#!/usr/bin/env bash
# Checks and measures this repository on one GPU, without a network; usage below.
set -euo pipefail

usage() {
    cat <<'END'
Usage: benchmarks/gpu_check.sh [--python PYTHON] [--wheels FOLDER] [--seconds N] [RESULTS]

Runs the tests that need a GPU and the benchmarks at sizes that fit N seconds (default 480) in all. A
benchmark for which no time is left is skipped, and the summary says so.

  RESULTS            where the records go: gpu_check.json, gpu_check.log and a NAME-gpu.json for each
                     benchmark; default: $OUT where that is set, else benchmarks/results. There the
                     records also fill the GPU's columns of docs/performance.md.
  --python PYTHON    the Python to use; default: python3
  --wheels FOLDER    wheels of packages that this Python lacks; default: benchmarks/wheels, if it exists.
                     On a machine with a network, of the same Python and architecture, this fetches them:
                         python3 -m benchmarks.gpu_check --requirements | pip download --dest benchmarks/wheels -r /dev/stdin
                     Leave out those that PYTHON has, such as torch and its libraries: they are used.

Exit status: 0 all passed; 1 a test failed; 2 wrong usage; 3 no GPU; 4 no environment (wheels are missing);
5 a benchmark failed or ran out of its time.

Small trainings leave a GPU idle. Several runs of a study share one with
    nas-lightning study run FILE --gpus_per_run 0.25
which puts four runs on each GPU; benchmarks.processes measures how many pay (docs/cluster.md).
END
}

stop() { # status, line
    echo "gpu_check: $2" >&2
    exit "$1"
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=python3 wheels='' seconds=480 results=''
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --python | --wheels | --seconds)
            [ $# -gt 1 ] || stop 2 "$1 needs a value"
            case $1 in --python) python=$2 ;; --wheels) wheels=$2 ;; --seconds) seconds=$2 ;; esac
            shift 2
            ;;
        -*) stop 2 "there is no option $1; --help lists them" ;;
        *)
            [ -z "$results" ] || stop 2 "one folder for the results, not two: $results, $1"
            results=$1
            shift
            ;;
    esac
done
[[ $seconds =~ ^[1-9][0-9]{0,5}$ ]] || stop 2 "--seconds (=$seconds) must be a whole number of at least 1"
results=${results:-${OUT:-$here/results}}
mkdir -p "$results" || stop 2 "cannot write to $results"
results=$(cd "$results" && pwd)
[ -z "$wheels" ] || [ -d "$wheels" ] || stop 2 "--wheels (=$wheels) is no folder"
[ -n "$wheels" ] || [ ! -d "$here/wheels" ] || wheels=$here/wheels
[ -z "$wheels" ] || wheels=$(cd "$wheels" && pwd)

gpus=$(nvidia-smi -L 2>/dev/null) || gpus=''
grep -q '^GPU ' <<<"$gpus" || stop 3 "no GPU: nvidia-smi lists none. Nothing was measured"

python=$(command -v "$python") || stop 4 "no environment: there is no such Python (--python chooses one)"
python=$(cd "$(dirname "$python")" && pwd)/$(basename "$python")
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || stop 4 "no environment: $python is not Python 3.11 or later"
cd "$here/.."
begun=$SECONDS

if ! lacks=$("$python" -m benchmarks.gpu_check --lacking); then
    # The packages that this Python has stay in sight: torch alone is larger than what can be carried.
    environment=$(mktemp -d)
    trap 'rm -rf "$environment"' EXIT
    site='import sysconfig; print(sysconfig.get_path("purelib"))'
    outer=$("$python" -c "$site")
    "$python" -m venv --without-pip "$environment" || stop 4 "no environment: $python makes none"
    python=$environment/bin/python
    site=$("$python" -c "$site")
    printf '%s\n' "$PWD" "$outer" >"$site/outer.pth"
    "$python" -m pip --version >/dev/null 2>&1 || "$python" -m ensurepip >/dev/null || stop 4 "no environment: $python has no pip"
    "$python" -m benchmarks.gpu_check --requirements >"$environment/requirements.txt"
    "$python" -m pip --disable-pip-version-check install --quiet --no-cache-dir --no-index \
        ${wheels:+--find-links "$wheels"} --requirement "$environment/requirements.txt" ||
        stop 4 "no environment: Python lacks $lacks; ${wheels:-wheels of them can be carried}${wheels:+ has no such wheels} (--help)"
    # The package itself is in the working tree; its version is asked for by name.
    mkdir "$site/nas_lightning-0.dist-info"
    printf '%s\n' 'Metadata-Version: 2.1' 'Name: nas-lightning' "Version: $("$python" -m benchmarks.gpu_check --version)" \
        >"$site/nas_lightning-0.dist-info/METADATA"
fi
"$python" -m benchmarks.gpu_check --seconds "$((seconds - (SECONDS - begun)))" "$results"
