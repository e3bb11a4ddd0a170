#!/usr/bin/env bash
# Tests the Makefile where no compiler is needed: the commit that reports name, and when programs are made again. Ends like the C++ tests with
# "N passed, N failed, N skipped".
set -u
CDPATH="" cd -- "$(dirname "$0")/.." || exit 1
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
if ! command -v git >/dev/null; then
    echo "skipped  makefile  git was not found"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
fi

problems=""
problem() { problems="$problems${problems:+; }$*"; }
commit() { # TAG EXPECTED: what make writes for a commit with this annotated tag, wherever it runs the tag's text
    local found
    git -C "$tmp" tag -f -a -m "a tag" "$1" 2>/dev/null || problem "git takes no tag $1"
    make -s -C "$tmp" CPU=1 build/cpu-BF16/commit.h >"$tmp/log" 2>&1 || problem "$1: $(tail -n 1 "$tmp/log")"
    found=$(cat "$tmp/build/cpu-BF16/commit.h")
    [ "$found" = "#define COMMIT \"$2\"" ] || problem "$1: found $found"
    [ -z "$(find "$tmp" -name 'ran*')" ] || problem "$1: it ran"
    git -C "$tmp" tag -d "$1" >/dev/null
}

unset GIT_DIR GIT_WORK_TREE MAKEFLAGS MAKELEVEL PRECISION SANITIZE EMULATE NATIVE WERROR GPU CPU ARCH
export HOME=$tmp XDG_CONFIG_HOME=$tmp GIT_CONFIG_NOSYSTEM=1  # no signing, no hooks of the user's
cp Makefile "$tmp/"
git -C "$tmp" init -q
git -C "$tmp" add Makefile
git -C "$tmp" -c user.name=x -c user.email=x@localhost commit -q -m "a commit"
git -C "$tmp" config user.name x
git -C "$tmp" config user.email x@localhost
while read -r tag expected; do commit "$tag" "$expected"; done <<'TAGS'
v1.0 v1.0
v1';touch${IFS}ran;' v1touchIFSran
v1"$(touch${IFS}ran)" v1touchIFSran
v1`touch${IFS}ran` v1touchIFSran
v1$(shell${IFS}touch${IFS}ran)# v1shellIFStouchIFSran
TAGS
# Another ARCH makes other programs, the same one none; warnings are errors unless they are not to be. The compiler is one that says its words.
mkdir "$tmp/test" && touch "$tmp/test/parts.cu"
printf '#!/bin/sh\necho "nvcc $*"\nwhile [ $# -gt 0 ]; do [ "$1" = -o ] && : >"$2"; shift; done\n' >"$tmp/nvcc" && chmod +x "$tmp/nvcc"
made() { make -C "$tmp" GPU=1 NVCC="$tmp/nvcc" build/gpu-BF16/parts "$@" 2>&1 | grep '^nvcc'; }
made ARCH=80 | grep -q 'sm_80.* -Werror .*,-Werror,.*parts.cu' || problem "for sm_80: $(made ARCH=80)"
made ARCH=80 >/dev/null && problem "made again for the same ARCH"
made ARCH=90 WERROR=0 >"$tmp/log" && grep -q 'sm_90.*parts.cu' "$tmp/log" || problem "not made again for another ARCH"
grep -q -- -Werror "$tmp/log" && problem "WERROR=0: $(cat "$tmp/log")"
rm -rf "$tmp/.git"
make -s -C "$tmp" CPU=1 build/cpu-BF16/commit.h >"$tmp/log" 2>&1
grep -qx '#define COMMIT "unknown"' "$tmp/build/cpu-BF16/commit.h" || problem "no repository: $(cat "$tmp/build/cpu-BF16/commit.h")"

if [ -z "$problems" ]; then
    echo "ok       makefile"
    echo "1 passed, 0 failed, 0 skipped"
else
    echo "FAILED   makefile  $problems"
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
fi
