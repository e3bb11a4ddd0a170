#!/usr/bin/env bash
# Tests the Makefile where no compiler is needed: the commit that reports name. Ends like the C++ tests with "N passed, N failed,
# N skipped".
set -u
CDPATH="" cd -- "$(dirname "$0")/.." || exit 1
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
if ! command -v git >/dev/null; then
    echo "skipped  commit_is_data  git was not found"
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
rm -rf "$tmp/.git"
make -s -C "$tmp" CPU=1 build/cpu-BF16/commit.h >"$tmp/log" 2>&1
grep -qx '#define COMMIT "unknown"' "$tmp/build/cpu-BF16/commit.h" || problem "no repository: $(cat "$tmp/build/cpu-BF16/commit.h")"

if [ -z "$problems" ]; then
    echo "ok       commit_is_data"
    echo "1 passed, 0 failed, 0 skipped"
else
    echo "FAILED   commit_is_data  $problems"
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
fi
