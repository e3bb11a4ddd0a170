#!/usr/bin/env bash
# Tests scripts/download.sh against a small server on this machine: nothing is fetched from the network. Ends like the
# C++ tests with "N passed, N failed, N skipped".
set -u
CDPATH="" cd -- "$(dirname "$0")/.." || exit 1

for tool in curl python3 unzip; do
    if ! command -v $tool >/dev/null; then
        echo "skipped  download  $tool was not found"
        echo "0 passed, 0 failed, 1 skipped"
        exit 0
    fi
done

tmp=$(mktemp -d) || exit 1
server="" tls_server=""
trap 'kill $server $tls_server 2>/dev/null; rm -rf "$tmp"' EXIT
mkdir -p "$tmp/www" "$tmp/root/scripts"
cp scripts/download.sh "$tmp/root/scripts/"
www=$tmp/www log=$tmp/log message=$tmp/message

python3 test/download_server.py "$www" "$log" >"$tmp/port" &
server=$!
for _ in $(seq 100); do [ -s "$tmp/port" ] || sleep 0.1; done
port=$(cat "$tmp/port")
export HF_ENDPOINT=http://127.0.0.1:$port DOWNLOAD_MIRROR=http://127.0.0.1:$port/web DOWNLOAD_RETRY_WAIT=0 DOWNLOAD_HTTP=1
unset QWEN3_DATA http_proxy HTTP_PROXY all_proxy ALL_PROXY

# ---- the framework ----

passed=0 failed=0
problem() { problems="$problems${problems:+; }$*"; }

check() { # the command must succeed
    "$@" || problem "not so: $*"
}
same() { cmp -s "$1" "$2" || problem "$1 is not $2"; }
absent() { [ ! -e "$1" ] || problem "$1 is there"; }
download() { # STATUS NAME...: runs the script, which must exit with STATUS
    local expected=$1 status=0
    shift
    : >"$log"
    bash "$tmp/root/scripts/download.sh" "$@" >"$message" 2>&1 || status=$?
    [ $status -eq "$expected" ] || problem "exit status $status instead of $expected: $(tail -n 3 "$message")"
}
says() { grep -qF -- "$1" "$message" || problem "expected \"$1\", got: $(tail -n 2 "$message")"; }
asked() { grep -qF -- "$1" "$log" || problem "no request \"$1\""; }
not_asked() { ! grep -qF -- "$1" "$log" || problem "a request \"$1\""; }
run() { # NAME: the test of that name, in fresh folders
    problems=
    rm -rf "${www:?}"/* "$tmp/root/models" "$tmp/root/data"
    "$1"
    if [ -z "$problems" ]; then
        passed=$((passed + 1))
        echo "ok       $1"
    else
        failed=$((failed + 1))
        echo "FAILED   $1  $problems"
    fi
}

bytes() { head -c "$1" /dev/urandom; }
sha() { sha256sum "$1" 2>/dev/null | cut -d ' ' -f 1; }
publish_model() { # ORG/NAME: two shards of 100 kB, stored as the hub stores large files
    repo=$www/$1/resolve/main model=$tmp/root/models/${1#*/}
    mkdir -p "$repo"
    for name in config.json vocab.json merges.txt tokenizer_config.json; do echo "$name" >"$repo/$name"; done
    for i in 1 2; do
        bytes 100000 >"$repo/model-0000$i-of-00002.safetensors"
        sha "$repo/model-0000$i-of-00002.safetensors" >"$repo/model-0000$i-of-00002.safetensors.sha"
    done
    cat >"$repo/model.safetensors.index.json" <<'JSON'
{"metadata": {"total_size": 200000}, "weight_map": {"a": "model-00001-of-00002.safetensors",
 "b": "model-00002-of-00002.safetensors", "c": "model-00001-of-00002.safetensors"}}
JSON
}
shard1="model-00001-of-00002.safetensors"

# ---- checkpoints ----

model_with_shards() {
    publish_model Qwen/Qwen3-8B
    download 0 Qwen3-8B
    for name in config.json vocab.json merges.txt tokenizer_config.json model.safetensors.index.json $shard1 \
        model-00002-of-00002.safetensors; do
        same "$model/$name" "$repo/$name"
    done
    check [ "$(find "$model" -type f | wc -l)" -eq 8 ]
    check [ "$(cat "$model/.repository")" = Qwen/Qwen3-8B ]
    says "generation_config.json: the repository has none"
    download 0 Qwen3-8B
    not_asked safetensors
    not_asked config.json\ # the optional generation_config.json alone is asked for again
}

model_in_one_file() {
    publish_model someone/Tiny_1.0
    rm "$repo"/model*
    bytes 5000 >"$repo/model.safetensors"
    rm "$repo"/vocab.json
    echo tokenizer >"$repo/tokenizer.json"
    download 0 someone/Tiny_1.0
    same "$model/model.safetensors" "$repo/model.safetensors"
    same "$model/tokenizer.json" "$repo/tokenizer.json"
    absent "$model/model.safetensors.index.json"
    rm "$repo/tokenizer.json" "$model/tokenizer.json"
    download 1 someone/Tiny_1.0
    says "expected tokenizer.json, or vocab.json and merges.txt, found neither. HINT: "
}

# Two repositories of one name are not mixed.
other_repository() {
    publish_model other/Tiny
    publish_model someone/Tiny
    rm "$repo/$shard1"
    download 1 nobody/Tiny  # has nothing, so keeps no folder from others
    download 1 someone/Tiny
    download 1 other/Tiny
    says "models/Tiny: this folder is for someone/Tiny, not for other/Tiny. HINT: "
    not_asked other
    mv "$model" "$tmp/root/models/someones"
    download 0 other/Tiny
    same "$model/$shard1" "$www/other/Tiny/resolve/main/$shard1"
    publish_model someone/Qwen3-8B
    download 1 someone/Qwen3-8B
    says "models/Qwen3-8B: this folder is for Qwen/Qwen3-8B, not for someone/Qwen3-8B. HINT: "
    absent "$model"
}

resume_truncated() {
    publish_model Qwen/Qwen3-8B
    mkdir -p "$model"
    head -c 60000 "$repo/$shard1" >"$model/$shard1.part"
    download 0 Qwen3-8B
    same "$model/$shard1" "$repo/$shard1"
    absent "$model/$shard1.part"
    asked "GET /stored/Qwen/Qwen3-8B/resolve/main/$shard1 bytes=60000-"
}

resume_complete_part() {
    publish_model Qwen/Qwen3-8B
    mkdir -p "$model"
    cp "$repo/$shard1" "$model/$shard1.part"
    download 0 Qwen3-8B
    same "$model/$shard1" "$repo/$shard1"
    not_asked "GET /stored/Qwen/Qwen3-8B/resolve/main/$shard1"
}

resume_too_long_part() {
    publish_model Qwen/Qwen3-8B
    mkdir -p "$model"
    bytes 100001 >"$model/$shard1.part"
    download 0 Qwen3-8B
    same "$model/$shard1" "$repo/$shard1"
}

resume_without_ranges() {
    publish_model Qwen/Qwen3-8B
    mkdir -p "$model"
    touch "$repo/$shard1.norange"
    head -c 60000 "$repo/$shard1" >"$model/$shard1.part"
    download 0 Qwen3-8B
    same "$model/$shard1" "$repo/$shard1"
}

# What lies there is perhaps no beginning of a file of which the server says nothing.
resume_of_nothing_known() {
    publish_model Qwen/Qwen3-8B
    rm "$repo/$shard1.sha"
    mkdir -p "$model"
    echo 503 >"$repo/$shard1.head"
    bytes 100000 >"$model/$shard1.part"
    download 0 Qwen3-8B
    same "$model/$shard1" "$repo/$shard1"
    says "$shard1: its server tells neither size nor checksum: neither was checked"
    check [ "$(grep -c "HEAD .*$shard1" "$log")" -eq 3 ]
}

# A server that doesn't answer takes nothing away.
resume_without_network() {
    mkdir -p "$set_data/wikitext2"
    bytes 100000 >"$set_data/wikitext2/wikitext-2-raw-v1.zip.part"
    cp "$set_data/wikitext2/wikitext-2-raw-v1.zip.part" "$tmp/part"
    local answers=$HF_ENDPOINT
    HF_ENDPOINT=http://127.0.0.1:1
    download 1 wikitext2
    HF_ENDPOINT=$answers
    says "wikitext-2-raw-v1.zip: no answer. HINT: run this again later, it continues"
    same "$set_data/wikitext2/wikitext-2-raw-v1.zip.part" "$tmp/part"
}

# A set is unpacked by one call while another waits.
two_at_once_unpack() {
    local c4=$www/datasets/allenai/c4/resolve/main/en
    mkdir -p "$c4"
    numbered 45576 validation | gzip >"$c4/c4-validation.00000-of-00008.json.gz"
    numbered 500 train | gzip >"$c4/c4-train.00000-of-01024.json.gz"
    mkdir -p "$tmp/bin"
    printf '#!/bin/sh\nsleep 0.5\nexec %s "$@"\n' "$(command -v gzip)" >"$tmp/bin/gzip" && chmod +x "$tmp/bin/gzip"
    PATH=$tmp/bin:$PATH bash "$tmp/root/scripts/download.sh" c4 >"$tmp/first" 2>&1 &
    local first=$!
    for _ in $(seq 100); do [ -e "$set_data/c4/validation.jsonl.part" ] || sleep 0.02; done
    download 0 c4
    wait $first || problem "the first: $(tail -n 1 "$tmp/first")"
    says "data/c4: waits for another call, which fetches into it"
    numbered 45576 validation | cmp -s - "$set_data/c4/validation.jsonl" || problem "validation.jsonl differs"
    check [ "$(find "$set_data" -type f | wc -l)" -eq 2 ]
}

two_at_once() {
    publish_model Qwen/Qwen3-8B
    echo 2 >"$repo/$shard1.slow"
    bash "$tmp/root/scripts/download.sh" Qwen3-8B >"$tmp/first" 2>&1 &
    local first=$!
    for _ in $(seq 100); do [ -e "$model/$shard1.part" ] || sleep 0.1; done
    download 0 Qwen3-8B
    wait $first || problem "the first: $(tail -n 1 "$tmp/first")"
    says "models/Qwen3-8B: waits for another call, which fetches into it"
    same "$model/$shard1" "$repo/$shard1"
    check [ "$(grep -c "GET /stored.*$shard1" "$tmp/log")" -le 1 ]
}

connection_breaks() {
    publish_model Qwen/Qwen3-8B
    echo 40000 >"$repo/$shard1.drop"
    download 0 Qwen3-8B
    same "$model/$shard1" "$repo/$shard1"
    says "interrupted (curl error 18"
    asked "GET /stored/Qwen/Qwen3-8B/resolve/main/$shard1 bytes=40000-"
}

# A link that breaks more often than is tried in vain, but carries on each time; and one that gets no further.
connection_breaks_often() {
    publish_model Qwen/Qwen3-8B
    echo 15000 >"$repo/$shard1.drops"
    download 0 Qwen3-8B
    same "$model/$shard1" "$repo/$shard1"
    rm "$model/$shard1"
    : >"$repo/$shard1.norange"
    download 1 Qwen3-8B
    says "failed 5 times (curl error"
}

checksum_mismatch() {
    publish_model Qwen/Qwen3-8B
    wrong=$(printf 'f%.0s' $(seq 64))
    echo "$wrong" >"$repo/$shard1.sha"
    download 1 Qwen3-8B
    says "expected sha256 $wrong, got $(sha "$repo/$shard1"). HINT: "
    absent "$model/$shard1"
    absent "$model/$shard1.part"
    sha "$repo/$shard1" >"$repo/$shard1.sha"
    download 0 Qwen3-8B
    same "$model/$shard1" "$repo/$shard1"
}

missing_files() {
    download 1 nobody/nothing
    says "/nobody/nothing/resolve/main/config.json: HTTP 404, there is no such file. HINT: "
    publish_model Qwen/Qwen3-8B
    rm "$repo/$shard1"
    download 1 Qwen3-8B
    says "$shard1: HTTP 404"
    absent "$model/$shard1"
    echo '{"weight_map": {}}' >"$model/model.safetensors.index.json"
    download 1 Qwen3-8B
    says "model.safetensors.index.json: it names no shards. HINT: "
}

http_errors() {
    publish_model Qwen/Qwen3-8B
    echo 401 >"$repo/config.json.status"
    download 1 Qwen3-8B
    says "config.json: HTTP 401. HINT: is the name right?"
    echo 503 >"$repo/config.json.status"
    download 1 Qwen3-8B
    says "config.json: failed 5 times (curl error 22, HTTP 503). HINT: "
    check [ "$(grep -c GET "$log")" -eq 5 ]
    echo 410 >"$repo/config.json.status"
    download 1 Qwen3-8B
    says "config.json: HTTP 410. HINT: "
    HF_ENDPOINT=http://127.0.0.1:1 download 1 Qwen3-8B
    says "failed 5 times (curl error 7, HTTP 000). HINT: "
}

disk_full() {
    publish_model Qwen/Qwen3-8B
    echo 900000000000000000 >"$repo/$shard1.size"
    download 1 Qwen3-8B
    says "models/Qwen3-8B: 900000000000000000 bytes are needed, but only "
    not_asked "GET /stored"
    rm "$repo/$shard1.size"
    # A limit on the size of files stands for the disk that fills up while it is written.
    trap '' XFSZ
    (ulimit -f 20 && download 1 Qwen3-8B && echo "$problems" >"$tmp/inner")
    trap - XFSZ
    problem_inside=$(cat "$tmp/inner")
    [ -z "$problem_inside" ] || problem "$problem_inside"
    says "$shard1.part: the file can't be written. HINT: is there space left on the disk?"
    absent "$model/$shard1"
    download 0 Qwen3-8B
    same "$model/$shard1" "$repo/$shard1"
    rm -rf "$model"
    mkdir -p "$tmp/root/models"
    echo "no folder" >"$model"
    download 1 Qwen3-8B
    says "models/Qwen3-8B: the folder can't be created"
}

# Nothing but https unless this test says so, neither at once nor after a redirect.
https_only() {
    publish_model Qwen/Qwen3-8B
    DOWNLOAD_HTTP="" download 1 Qwen3-8B
    says "/Qwen/Qwen3-8B/resolve/main/config.json: it is not https, or leads to what is not. HINT: see DOWNLOAD_HTTP"
    check [ ! -s "$log" ]
    HF_ENDPOINT=file://$www DOWNLOAD_HTTP="" download 1 Qwen3-8B
    says "it is not https"
    echo "from a file" >"$tmp/secret"
    echo "file://$tmp/secret" >"$repo/config.json.location"
    download 1 Qwen3-8B
    says "config.json: it is not https, or leads to what is not"
    absent "$model/config.json"
    if command -v openssl >/dev/null; then
        publish_over_tls
        CURL_CA_BUNDLE=$tmp/cert.pem DOWNLOAD_HTTP="" HF_ENDPOINT=https://127.0.0.1:$tls download 1 Qwen3-8B
        says "config.json: it is not https, or leads to what is not"
        not_asked Qwen3-8B  # by http
        kill $tls_server && tls_server=
    fi
}

# A server with https that redirects every request to http: what a network in between would like.
publish_over_tls() {
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 \
        -keyout "$tmp/key.pem" -out "$tmp/cert.pem" 2>/dev/null
    cat >"$tmp/tls.py" <<'PYTHON'
import http.server, ssl, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        self.send_response(302)
        self.send_header("Location", sys.argv[1] + self.path)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2], sys.argv[3])
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
PYTHON
    python3 "$tmp/tls.py" "http://127.0.0.1:$port" "$tmp/cert.pem" "$tmp/key.pem" >"$tmp/tls" &
    tls_server=$!
    for _ in $(seq 100); do [ -s "$tmp/tls" ] || sleep 0.1; done
    tls=$(cat "$tmp/tls")
}

# Names that come from the network are no patterns and no paths.
hostile_names() {
    publish_model Qwen/Qwen3-8B
    mkdir -p "$model"
    for name in '../../up.safetensors' 'a b.safetensors' '*.safetensors' '[1-9].safetensors' '.hidden.safetensors' \
        'a?b.safetensors'; do
        echo "{\"weight_map\": {\"a\": \"$name\", \"b\": \"$shard1\"}}" >"$model/model.safetensors.index.json"
        download 1 Qwen3-8B
        says "model.safetensors.index.json: expected names of shards, found $(printf %q "$name"). HINT: "
        not_asked GET\ /stored
    done
    HF_ENDPOINT="http://127.0.0.1:$port/[1-3]{a,b}" download 1 nobody/nothing
    asked "GET /[1-3]{a,b}/nobody/nothing/resolve/main/config.json"
}

# The names of the hub's repositories, and whose they are.
known_names() {
    local org name
    for org in Qwen/Qwen3-8B-AWQ Qwen/Qwen3-0.6B-GPTQ-Int8 Qwen/Qwen3-30B-A3B-GPTQ-Int4 Qwen/Qwen3-8B-FP8 \
        Qwen/Qwen3-30B-A3B Qwen/Qwen3-235B-A22B HuggingFaceTB/SmolLM2-135M; do
        name=${org#*/}
        download 1 "$name"
        asked "GET /$org/resolve/main/config.json"
    done
    publish_model HuggingFaceTB/SmolLM2-135M
    download 0 SmolLM2-135M
    same "$model/$shard1" "$repo/$shard1"
}

# ---- sets ----

publish_zip() { # URL-PATH MEMBER=LINES...: lines are numbered, so that every file differs
    mkdir -p "$(dirname "$www/$1")"
    python3 - "$www/$1" "${@:2}" <<'PYTHON'
import os.path, sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w", zipfile.ZIP_DEFLATED) as z:
    for item in sys.argv[2:]:
        name, n = item.split("=")
        z.writestr(name, "".join(f"{name} {i}\n" for i in range(int(n))))
        z.writestr(f"__MACOSX/{os.path.dirname(name)}/._{os.path.basename(name)}", "not this one\n")
PYTHON
}
starts_with() { # FILE TEXT LINES
    check [ "$(head -n 1 "$1")" = "$2" ]
    check [ "$(awk 'END { print NR }' "$1")" -eq "$3" ]
}
numbered() { seq "$1" | sed "s/^/$2 /"; }
set_data=$tmp/root/data

set_wikitext2() {
    archive=datasets/ggml-org/ci/resolve/main/wikitext-2-raw-v1.zip
    publish_zip $archive wikitext-2-raw/wiki.test.raw=4358 wikitext-2-raw/wiki.valid.raw=3760 \
        wikitext-2-raw/wiki.train.raw=9
    sha "$www/$archive" >"$www/$archive.sha"
    download 1 wikitext2
    says "data/wikitext2/wiki.train.raw: expected 36718 lines, found 9. HINT: "
    absent "$set_data/wikitext2/wiki.train.raw"
    absent "$set_data/wikitext2/wiki.train.raw.part"
    rm -rf "$set_data"
    publish_zip $archive wikitext-2-raw/wiki.test.raw=4358 wikitext-2-raw/wiki.valid.raw=3760 \
        wikitext-2-raw/wiki.train.raw=36718
    sha "$www/$archive" >"$www/$archive.sha"
    download 0 wikitext2
    starts_with "$set_data/wikitext2/wiki.test.raw" "wikitext-2-raw/wiki.test.raw 0" 4358
    starts_with "$set_data/wikitext2/wiki.valid.raw" "wikitext-2-raw/wiki.valid.raw 0" 3760
    starts_with "$set_data/wikitext2/wiki.train.raw" "wikitext-2-raw/wiki.train.raw 0" 36718
    check [ "$(find "$set_data" -type f | wc -l)" -eq 3 ]
    download 0 wikitext2
    not_asked wikitext
}

set_broken_zip() {
    archive=web/ai2-public-datasets.s3.amazonaws.com/arc/ARC-V1-Feb2018.zip
    publish_zip $archive A/ARC-Easy/ARC-Easy-Test.jsonl=2376 A/ARC-Challenge/ARC-Challenge-Test.jsonl=1172
    cp "$www/$archive" "$tmp/whole.zip"
    head -c 3000 "$tmp/whole.zip" >"$www/$archive"
    download 1 arc
    says "ARC-V1-Feb2018.zip: it can't be unpacked. HINT: "
    absent "$set_data/arc/ARC-Easy-Test.jsonl"
    cp "$tmp/whole.zip" "$www/$archive"
    rm "$set_data/arc/ARC-V1-Feb2018.zip"
    download 0 arc
    starts_with "$set_data/arc/ARC-Easy-Test.jsonl" "A/ARC-Easy/ARC-Easy-Test.jsonl 0" 2376
    starts_with "$set_data/arc/ARC-Challenge-Test.jsonl" "A/ARC-Challenge/ARC-Challenge-Test.jsonl 0" 1172
}

# The checksums of these two archives are part of the script, so what this server has must be refused.
set_known_checksums() {
    publish_zip web/storage.googleapis.com/ai2-mosaic/public/winogrande/winogrande_1.1.zip winogrande_1.1/dev.jsonl=1267
    publish_zip web/dl.fbaipublicfiles.com/glue/superglue/data/v2/BoolQ.zip BoolQ/val.jsonl=3270
    download 1 winogrande
    says "expected sha256 db997e35f11b014043531e7cd7ef30591022fd5946063e1e1e1416963d342fa5, got "
    download 1 boolq
    says "expected sha256 853fbe7922f70c59629f06a39e8d9ca440c3d740e760fd3b87a5ddf3dcba2436, got "
    check [ -z "$(find "$set_data" -type f)" ]
}

set_plain_files() {
    mkdir -p "$www/web/yonatanbisk.com/piqa/data" "$www/web/raw.githubusercontent.com/rowanz/hellaswag/master/data"
    numbered 1838 piqa >"$www/web/yonatanbisk.com/piqa/data/valid.jsonl"
    numbered 1838 label >"$www/web/yonatanbisk.com/piqa/data/valid-labels.lst"
    hellaswag=$www/web/raw.githubusercontent.com/rowanz/hellaswag/master/data/hellaswag_val.jsonl
    numbered 10042 hellaswag >"$hellaswag"
    download 0 piqa hellaswag
    same "$set_data/piqa/valid.jsonl" "$www/web/yonatanbisk.com/piqa/data/valid.jsonl"
    same "$set_data/piqa/valid-labels.lst" "$www/web/yonatanbisk.com/piqa/data/valid-labels.lst"
    same "$set_data/hellaswag/hellaswag_val.jsonl" "$hellaswag"
    rm -rf "$set_data"
    echo "<html>log in</html>" >"$hellaswag"
    download 1 hellaswag
    says "data/hellaswag/hellaswag_val.jsonl: expected 10042 lines, found 1. HINT: "
    absent "$set_data/hellaswag/hellaswag_val.jsonl"
}

# Sets go where ./qwen3 looks for them; a folder's name is seen from where the caller is.
set_folder_of_the_environment() {
    mkdir -p "$tmp/caller" "$www/web/yonatanbisk.com/piqa/data"
    numbered 1838 piqa >"$www/web/yonatanbisk.com/piqa/data/valid.jsonl"
    numbered 1838 label >"$www/web/yonatanbisk.com/piqa/data/valid-labels.lst"
    QWEN3_DATA="$tmp/my sets" download 0 piqa
    says "piqa: complete in $tmp/my sets/piqa"
    same "$tmp/my sets/piqa/valid.jsonl" "$www/web/yonatanbisk.com/piqa/data/valid.jsonl"
    cd "$tmp/caller" && QWEN3_DATA=sets download 0 piqa && cd "$OLDPWD" || exit 1
    same "$tmp/caller/sets/piqa/valid-labels.lst" "$www/web/yonatanbisk.com/piqa/data/valid-labels.lst"
    absent "$set_data"
}

set_c4() {
    c4=$www/datasets/allenai/c4/resolve/main/en
    mkdir -p "$c4"
    numbered 45576 validation | gzip >"$c4/c4-validation.00000-of-00008.json.gz"
    numbered 500 train | gzip >"$c4/c4-train.00000-of-01024.json.gz"
    download 0 c4
    numbered 45576 validation | cmp -s - "$set_data/c4/validation.jsonl" || problem "validation.jsonl differs"
    numbered 500 train | cmp -s - "$set_data/c4/train.jsonl" || problem "train.jsonl differs"
    check [ "$(find "$set_data" -type f | wc -l)" -eq 2 ]
}

set_mmlu() {
    mkdir -p "$tmp"/mmlu/data/{dev,test,val} "$www/web/people.eecs.berkeley.edu/~hendrycks"
    for i in $(seq 57); do
        echo "q,a,b,c,d,A" >"$tmp/mmlu/data/dev/subject${i}_dev.csv"
        echo "q,a,b,c,d,B" >"$tmp/mmlu/data/test/subject${i}_test.csv"
    done
    tar -cf "$www/web/people.eecs.berkeley.edu/~hendrycks/data.tar" -C "$tmp/mmlu" data
    download 0 mmlu
    check [ "$(cat "$set_data"/mmlu/test/*.csv | sort | uniq -c | tr -s ' ')" = " 57 q,a,b,c,d,B" ]
    check [ "$(find "$set_data" -type f | wc -l)" -eq 114 ]
    download 0 mmlu
    not_asked data.tar
    rm -rf "$set_data" "$tmp/mmlu/data/test/subject7_test.csv"
    tar -cf "$www/web/people.eecs.berkeley.edu/~hendrycks/data.tar" -C "$tmp/mmlu" data
    download 1 mmlu
    says "expected 57 subjects in test, found 56. HINT: "
    absent "$set_data/mmlu/test"
}

set_tokenizer() {
    publish_model Qwen/Qwen3-0.6B-Base
    echo generation >"$repo/generation_config.json"
    download 0 qwen3-tokenizer
    for name in vocab.json merges.txt tokenizer_config.json generation_config.json; do
        same "$set_data/qwen3-tokenizer/$name" "$repo/$name"
    done
}

# ---- the command line ----

usage() {
    download 2
    says "usage: scripts/download.sh NAME..."
    download 0 -h
    for name in Qwen3-0.6B Qwen3-32B Qwen3-14B-Base SmolLM2-135M Qwen3-30B-A3B Qwen3-8B-AWQ wikitext2 c4 piqa arc hellaswag winogrande boolq mmlu \
        qwen3-tokenizer all-data; do
        check grep -qE "^ +$name( |\$)" "$message"
    done
    for wrong in Qwen4-1B wikitext ../up a/b/c /etc a/ -x "" "*" "a/b?c" "a/{b,c}" Qwen3-8B-GPTQ $'a/b\nc'; do
        download 2 "$wrong"
        says "\"$wrong\" is neither a model nor a set. HINT: scripts/download.sh -h lists them"
    done
    download 2 piqa Qwen4-1B # nothing is fetched before every name is known to be right
    not_asked GET
}

for name in model_with_shards model_in_one_file other_repository resume_truncated resume_complete_part resume_too_long_part \
    resume_without_ranges resume_of_nothing_known resume_without_network two_at_once two_at_once_unpack connection_breaks connection_breaks_often checksum_mismatch missing_files http_errors https_only hostile_names \
    known_names disk_full set_wikitext2 set_broken_zip set_known_checksums set_plain_files set_folder_of_the_environment set_c4 set_mmlu set_tokenizer usage; do
    run $name
done
echo "$passed passed, $failed failed, 0 skipped"
[ $failed -eq 0 ]
