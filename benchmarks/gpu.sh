#!/usr/bin/env bash
# Images a second on a GPU: benchmarks/gpu.py, also where nothing but torch and transformers is installed.
#
#     benchmarks/gpu.sh --prepare [DIST ...]    here: fetch what the GPU's Python lacks as wheels into .gpu-wheels/
#     benchmarks/gpu.sh [options of gpu.py]     there: unpack them beside, measure, and print a table
#
# The wheels are for Python 3.12 on Linux x86-64, about 3 MB. Figures go to gpu.json in --output, or in $OUT.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
wheels=.gpu-wheels

if [ "${1:-}" = --prepare ]; then
    shift
    [ $# -gt 0 ] || set -- segment-anything pycocotools shapely msgspec
    mkdir -p "$wheels"
    platforms=()
    for glibc in 2_28 2_27 2_24 2_17; do platforms+=(--platform "manylinux_${glibc}_x86_64"); done
    "$python" -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
        "${platforms[@]}" --platform manylinux2014_x86_64 --platform manylinux1_x86_64 -d "$wheels" "$@"
    du -sh "$wheels"
    exit
fi

if compgen -G "$wheels/*.whl" > /dev/null; then
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$wheels"/*.whl
    export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH}
fi
PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} "$python" benchmarks/gpu.py "$@"
