#!/usr/bin/env bash
# Gets checkpoints and evaluation sets from their official sources.
#   scripts/download.sh Qwen3-0.6B-Base wikitext2 c4
#   scripts/download.sh -h                             lists every name
#
# A file is fetched as FILE.part, continued where an earlier run stopped, checked (size, sha256 or number of lines, as
# far as they are known) and only then renamed to FILE. A file that is there is not fetched again.
#
# Environment: QWEN3_DATA           where sets go, and ./qwen3 looks for them, instead of data
#              HF_ENDPOINT          instead of https://huggingface.co
#              DOWNLOAD_MIRROR      instead of https:// of every other source: $DOWNLOAD_MIRROR/host/path
#              DOWNLOAD_RETRY_WAIT  seconds to wait before a failed transfer is tried again (5)
#              DOWNLOAD_HTTP=1      allows http in place of https; only for a server on this machine, as the test's
set -u -o pipefail
data=${QWEN3_DATA:-data}
[[ -z ${QWEN3_DATA:-} || $data == /* ]] || data=$PWD/$data  # seen from where the caller is
CDPATH="" cd -- "$(dirname "$0")/.." || exit 1

hub=${HF_ENDPOINT:-https://huggingface.co}
web=${DOWNLOAD_MIRROR:-https:/}
retry_wait=${DOWNLOAD_RETRY_WAIT:-5}
schemes=https
[ -n "${DOWNLOAD_HTTP:-}" ] && schemes=https,http
models=(Qwen3-0.6B Qwen3-1.7B Qwen3-4B Qwen3-8B Qwen3-14B Qwen3-32B
    Qwen3-0.6B-Base Qwen3-1.7B-Base Qwen3-4B-Base Qwen3-8B-Base Qwen3-14B-Base)
mixtures=(Qwen3-30B-A3B Qwen3-30B-A3B-Base Qwen3-235B-A22B)
packed=(Qwen3-4B-AWQ Qwen3-8B-AWQ Qwen3-14B-AWQ Qwen3-32B-AWQ Qwen3-0.6B-GPTQ-Int8 Qwen3-1.7B-GPTQ-Int8
    Qwen3-0.6B-FP8 Qwen3-1.7B-FP8 Qwen3-4B-FP8 Qwen3-8B-FP8 Qwen3-14B-FP8 Qwen3-32B-FP8
    Qwen3-30B-A3B-GPTQ-Int4 Qwen3-30B-A3B-FP8 Qwen3-235B-A22B-GPTQ-Int4 Qwen3-235B-A22B-FP8)
sets=(wikitext2 c4 piqa arc hellaswag winogrande boolq mmlu qwen3-tokenizer)

usage() {
    echo "usage: scripts/download.sh NAME..."
    echo "checkpoints, into models/NAME/:"
    printf '  %s\n' "${models[@]}"
    echo "  SmolLM2-135M (of Hugging Face: the smallest real model, 0.3 GB, for a CPU)"
    echo "  mixtures of experts:"
    printf '  %s\n' "${mixtures[@]}"
    echo "  quantized by Qwen:"
    printf '  %s\n' "${packed[@]}"
    echo "  ORG/NAME (any other repository of the Hugging Face hub)"
    echo "evaluation and calibration sets, into $data/NAME/:"
    printf '  %s\n' "${sets[@]}"
    echo "  all-data (every set above)"
}

is_one_of() { # NAME LIST...
    local name=$1 other
    shift
    for other in "$@"; do [ "$name" = "$other" ] && return 0; done
    return 1
}

die() {
    echo "download.sh: $*" >&2
    exit 1
}

say() { echo "download.sh: $*" >&2; }

size_of() { if [ -f "$1" ]; then wc -c <"$1" | tr -d ' '; else echo 0; fi; }

sha256_of() {
    if command -v sha256sum >/dev/null; then
        sha256sum "$1" | cut -d ' ' -f 1
    elif command -v shasum >/dev/null; then
        shasum -a 256 "$1" | cut -d ' ' -f 1
    else
        openssl dgst -sha256 -r "$1" | cut -d ' ' -f 1
    fi
}

# The sha256 of files whose official bytes are known for sure.
known_sha256() {
    case $1 in
    */winogrande_1.1.zip) echo db997e35f11b014043531e7cd7ef30591022fd5946063e1e1e1416963d342fa5 ;;
    */superglue/data/v2/BoolQ.zip) echo 853fbe7922f70c59629f06a39e8d9ca440c3d740e760fd3b87a5ddf3dcba2436 ;;
    */Qwen/Qwen3-0.6B/resolve/main/model.safetensors)
        echo f47f71177f32bcd101b7573ec9171e6a57f4f4d31148d38e382306f42996874b ;;
    esac
}

# curl that speaks nothing but https, redirected or not, and takes no [] or {} in a URL for a pattern.
curl_https() { curl -g --proto "=$schemes" --proto-redir "=$schemes" --connect-timeout 20 "$@"; }

# Prints "SIZE SHA256 CODE" of a URL, "-" for what its server doesn't say, and as the code if it doesn't answer. The hub says both of a large file in the answer
# that redirects to where it is stored; the storage itself may refuse this kind of request.
remote_facts() {
    curl_https -sSIL --max-time 60 --retry 2 --retry-delay "$retry_wait" "$1" 2>/dev/null | tr -d '\r"' | awk '
        /^HTTP\// { code = $2; length_ = "" }
        { field = tolower($1) }
        field == "content-length:" { length_ = $2 }
        field == "x-linked-size:" { size = $2 }
        field == "x-linked-etag:" && $2 ~ /^[0-9a-f]+$/ && length($2) == 64 { sha = $2 }
        END {
            if (size == "" && code == 200) size = length_
            print (size ~ /^[1-9][0-9]*$/ ? size : "-"), (sha != "" ? sha : "-"), (code != "" ? code : "-")
        }'
}

check_space() { # BYTES FOLDER
    local free
    free=$(df -Pk "$2" | awk 'NR == 2 { printf "%.0f", $4 * 1024 }')
    [ "$1" -le "${free:-$1}" ] ||
        die "$2: $1 bytes are needed, but only $free are free. HINT: make room, or link the folder to a larger disk"
}

check_lines() { # FILE LINES ("-": any number): removes a file that hasn't got them
    local found
    [ "$2" = - ] && return
    found=$(awk 'END { print NR }' "$1")
    [ "$found" -eq "$2" ] && return
    rm -f "$1"
    die "${1%.part}: expected $2 lines, found $found. HINT: has the source changed, or is a proxy in between?"
}

name_file() { # PART FILE
    mv "$1" "$2" || die "$2: the finished file can't be given this name"
}

cannot_unpack() { # ARCHIVE
    die "$1: it can't be unpacked. HINT: is there space left on the disk? If there is, remove the archive and try again"
}

# Transfers the rest of URL to PART. Returns 1 if there is no such URL; dies of any other lasting failure.
transfer() { # URL PART SIZE
    local url=$1 part=$2 size=$3 attempt=0 code status have most=-1
    local progress=-sS
    [ -t 2 ] && progress=--progress-bar
    while :; do
        have=$(size_of "$part")
        [ "$have" = "$size" ] && return 0
        if [ "$size" != - ] && [ "$have" -gt "$size" ]; then rm -f "$part"; fi
        if [ "$have" -gt $most ]; then # a link that breaks, but carries on
            [ $most -lt 0 ] || attempt=0
            most=$have
        fi
        status=0
        code=$(curl_https $progress -f -L -C - -o "$part" -w '%{http_code}' --speed-limit 1000 --speed-time 60 \
            "$url") || status=$?
        [ $status -eq 0 ] && return 0
        case $status:$code in
        1:*) die "$url: it is not https, or leads to what is not. HINT: see DOWNLOAD_HTTP in scripts/download.sh" ;;
        22:404) return 1 ;;
        22:401 | 22:403) die "$url: HTTP $code. HINT: is the name right? Gated repositories are out of reach here" ;;
        22:416 | 33:* | 36:*) rm -f "$part" ;; # this server can't continue from there: begin again
        22:408 | 22:429 | 22:5??) ;;
        22:*) die "$url: HTTP $code. HINT: try again later, or name a mirror (see the head of scripts/download.sh)" ;;
        23:*) die "$part: the file can't be written. HINT: is there space left on the disk?" ;;
        esac
        attempt=$((attempt + 1))
        [ $attempt -ge 5 ] &&
            die "$url: failed $attempt times (curl error $status, HTTP $code). HINT: run this again later, it continues"
        say "$url: interrupted (curl error $status, HTTP $code), trying again"
        sleep "$retry_wait"
    done
}

# One call at a time fetches into a folder, and unpacks there: the lock is on the folder, and the kernel frees it.
holding=""
with_lock() { # FOLDER COMMAND...
    local folder=$1 outer=$holding status=0
    shift
    if [ "$holding" = "$folder" ]; then "$@"; return; fi
    mkdir -p "$folder" || die "$folder: the folder can't be created"
    {
        if command -v flock >/dev/null && ! flock -n 9; then
            say "$folder: waits for another call, which fetches into it"
            flock 9
        fi
        holding=$folder
        "$@" || status=$?
        holding=$outer
    } 9<"$folder" || die "$folder: the folder can't be opened"
    return $status
}

# Returns 1 if there is no such URL.
try_fetch() { # URL FILE [LINES]
    [ -f "$2" ] || with_lock "$(dirname "$2")" fetch_locked "$@"
}

fetch_locked() { # URL FILE [LINES]
    local url=$1 file=$2 lines=${3:--} part=$2.part size sha code found
    [ -f "$file" ] && return 0
    read -r size sha code < <(remote_facts "$url")
    [ "$code" = - ] && [ -s "$part" ] && die "$url: no answer. HINT: run this again later, it continues"
    found=$(known_sha256 "$url")
    sha=${found:-$sha}
    [ "$size" = - ] && rm -f "$part" # whether it is the beginning of this file can't be told
    [ "$size" != - ] && check_space $((size - $(size_of "$part"))) "$(dirname "$file")"
    say "$file$([ "$size" != - ] && echo " ($size bytes)")"
    transfer "$url" "$part" "$size" || return 1
    [ "$size$sha$lines" = --- ] && say "$url: its server tells neither size nor checksum: neither was checked"
    found=$(size_of "$part")
    if [ "$size" != - ] && [ "$found" != "$size" ]; then
        rm -f "$part"
        die "$url: expected $size bytes, got $found. HINT: run this again"
    fi
    if [ "$sha" != - ]; then
        found=$(sha256_of "$part")
        if [ "$found" != "$sha" ]; then
            rm -f "$part"
            die "$url: expected sha256 $sha, got $found. HINT: run this again; if it stays so, the source has changed"
        fi
    fi
    check_lines "$part" "$lines"
    name_file "$part" "$file"
}

fetch() { # URL FILE [LINES]
    try_fetch "$@" || die "$1: HTTP 404, there is no such file. HINT: scripts/download.sh -h lists the right names"
}

# One file of a zip archive, found by its name in whatever folder, to stdout.
zip_member() { # ZIP NAME
    if command -v unzip >/dev/null; then
        unzip -p "$1" "*/$2"
    elif command -v bsdtar >/dev/null; then
        bsdtar -xOf "$1" "*/$2"
    elif command -v python3 >/dev/null; then
        python3 -c 'import shutil, sys, zipfile
z = zipfile.ZipFile(sys.argv[1])
name, = [n for n in z.namelist() if n.endswith("/" + sys.argv[2])]
shutil.copyfileobj(z.open(name), sys.stdout.buffer)' "$1" "$2"
    else
        die "unzip was not found. HINT: install unzip"
    fi
}

from_zip() { # URL FOLDER "NAME LINES"...
    local url=$1 folder=$2 zip name lines item
    zip=$folder/$(basename "$url")
    shift 2
    for item in "$@"; do
        read -r name lines <<<"$item"
        [ -f "$folder/$name" ] && continue
        fetch "$url" "$zip"
        zip_member "$zip" "$name" >"$folder/$name.part" || cannot_unpack "$zip"
        check_lines "$folder/$name.part" "$lines"
        name_file "$folder/$name.part" "$folder/$name"
    done
    rm -f "$zip"
}

from_gzip() { # URL FILE LINES
    local gz=$2.gz
    [ -f "$2" ] && return
    fetch "$1" "$gz"
    gzip -dc "$gz" >"$2.part" || cannot_unpack "$gz"
    check_lines "$2.part" "$3"
    name_file "$2.part" "$2"
    rm -f "$gz"
}

get_mmlu() {
    local folder=$data/mmlu tar=$data/mmlu/data.tar work=$data/mmlu/unpacked.part split n
    if [ -d "$folder/dev" ] && [ -d "$folder/test" ]; then return; fi
    fetch "$web/people.eecs.berkeley.edu/~hendrycks/data.tar" "$tar"
    rm -rf "$work"
    mkdir -p "$work" || die "$work: the folder can't be created"
    tar -xf "$tar" -C "$work" data/dev data/test || cannot_unpack "$tar"
    for split in dev test; do
        n=$(find "$work/data/$split" -name "*_$split.csv" | wc -l)
        [ "$n" -eq 57 ] || die "$tar: expected 57 subjects in $split, found $n. HINT: has the source changed?"
        [ -d "$folder/$split" ] || name_file "$work/data/$split" "$folder/$split"
    done
    rm -rf "$work" "$tar"
}

get_set() {
    local c4=$hub/datasets/allenai/c4/resolve/main/en qwen=$hub/Qwen/Qwen3-0.6B-Base/resolve/main name
    case $1 in
    wikitext2)
        from_zip "$hub/datasets/ggml-org/ci/resolve/main/wikitext-2-raw-v1.zip" "$data/wikitext2" \
            "wiki.test.raw 4358" "wiki.valid.raw 3760" "wiki.train.raw 36718" ;;
    c4)
        from_gzip "$c4/c4-validation.00000-of-00008.json.gz" "$data/c4/validation.jsonl" 45576
        from_gzip "$c4/c4-train.00000-of-01024.json.gz" "$data/c4/train.jsonl" - ;;
    piqa)
        fetch "$web/yonatanbisk.com/piqa/data/valid.jsonl" "$data/piqa/valid.jsonl" 1838
        fetch "$web/yonatanbisk.com/piqa/data/valid-labels.lst" "$data/piqa/valid-labels.lst" 1838 ;;
    arc)
        from_zip "$web/ai2-public-datasets.s3.amazonaws.com/arc/ARC-V1-Feb2018.zip" "$data/arc" \
            "ARC-Easy-Test.jsonl 2376" "ARC-Challenge-Test.jsonl 1172" ;;
    hellaswag)
        fetch "$web/raw.githubusercontent.com/rowanz/hellaswag/master/data/hellaswag_val.jsonl" \
            "$data/hellaswag/hellaswag_val.jsonl" 10042 ;;
    winogrande)
        from_zip "$web/storage.googleapis.com/ai2-mosaic/public/winogrande/winogrande_1.1.zip" "$data/winogrande" \
            "dev.jsonl 1267" ;;
    boolq) from_zip "$web/dl.fbaipublicfiles.com/glue/superglue/data/v2/BoolQ.zip" "$data/boolq" "val.jsonl 3270" ;;
    mmlu) get_mmlu ;;
    qwen3-tokenizer)
        for name in vocab.json merges.txt tokenizer_config.json generation_config.json; do
            fetch "$qwen/$name" "$data/qwen3-tokenizer/$name"
        done ;;
    esac
}

# ORG/NAME of a name that is on the lists.
repository_of() { # NAME
    if is_one_of "$1" "${models[@]}" "${mixtures[@]}" "${packed[@]}"; then echo "Qwen/$1"
    elif [ "$1" = SmolLM2-135M ]; then echo "HuggingFaceTB/$1"; fi
}

# A folder has the files of one repository, which is written in it; a name on the lists, beside which the paper's cells may stand, is for its own.
check_folder() { # ORG/NAME FOLDER
    local owner hint="rename that folder"
    owner=$(repository_of "${1#*/}")
    if [ -n "$owner" ]; then hint="fetch it by other means, into a folder of another name"
    else owner=$(cat "$2/.repository" 2>/dev/null); fi
    [ -z "$owner" ] || [ "$owner" = "$1" ] || die "$2: this folder is for $owner, not for $1. HINT: $hint"
}

get_model() { # ORG/NAME
    local url=$hub/$1/resolve/main folder=models/${1#*/} name shards=()
    check_folder "$1" "$folder"
    fetch "$url/config.json" "$folder/config.json"
    echo "$1" >"$folder/.repository" || die "$folder/.repository: the file can't be written"
    for name in tokenizer.json vocab.json merges.txt tokenizer_config.json generation_config.json; do
        try_fetch "$url/$name" "$folder/$name" || say "$folder/$name: the repository has none"
    done
    if [ ! -f "$folder/tokenizer.json" ] && { [ ! -f "$folder/vocab.json" ] || [ ! -f "$folder/merges.txt" ]; }; then
        die "$1: expected tokenizer.json, or vocab.json and merges.txt, found neither. HINT: is this a model of the kinds README names?"
    fi
    [ -f "$folder/model.safetensors" ] && return
    if try_fetch "$url/model.safetensors.index.json" "$folder/model.safetensors.index.json"; then
        mapfile -t shards < <(grep -o '"[^"]*\.safetensors"' "$folder/model.safetensors.index.json" | tr -d '"' | sort -u)
        [ ${#shards[@]} -gt 0 ] ||
            die "$folder/model.safetensors.index.json: it names no shards. HINT: remove it, try again"
        for name in "${shards[@]}"; do
            [[ $name =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ ]] ||
                die "$folder/model.safetensors.index.json: expected names of shards, found $(printf %q "$name")." \
                    "HINT: can the repository be trusted?"
        done
        for name in "${shards[@]}"; do fetch "$url/$name" "$folder/$name"; done
    else
        fetch "$url/model.safetensors" "$folder/model.safetensors"
    fi
}

[ $# -eq 0 ] && usage >&2 && exit 2
wanted=()
for name in "$@"; do
    if [ "$name" = -h ] || [ "$name" = --help ]; then
        usage
        exit 0
    elif [ "$name" = all-data ]; then
        wanted+=("${sets[@]}")
    elif is_one_of "$name" "${sets[@]}"; then
        wanted+=("$name")
    elif [ -n "$(repository_of "$name")" ]; then
        wanted+=("$(repository_of "$name")")
    elif [[ $name =~ ^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$ ]]; then
        wanted+=("$name")
    else
        echo "download.sh: \"$name\" is neither a model nor a set. HINT: scripts/download.sh -h lists them" >&2
        exit 2
    fi
done
command -v curl >/dev/null || die "curl was not found. HINT: install curl"
for name in "${wanted[@]}"; do
    case $name in
    */*) get_model "$name" && say "${name#*/}: complete in models/${name#*/}" ;;
    *) with_lock "$data/$name" get_set "$name" && say "$name: complete in $data/$name" ;;
    esac
done
