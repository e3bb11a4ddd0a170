// perplexity.h: the texts of WikiText-2 and C4 as windows of 2048 tokens, the calibration windows, and what a perplexity is.
//
// A text set is one long run of tokens, cut into windows without overlap. Each window is a segment of its own: positions start at
// 0, no BOS. Its loss is the mean of -log p over its window - 1 predicted tokens; PPL = exp(mean of the window losses). The
// standard error is that of the mean over windows, carried through the exponential: PPL * s / sqrt(n).
//
// wikitext2: the test split, one row per line, a line of white space alone being an empty row; rows joined with "\n\n"; tokenized
//     once as a whole. The paper's numbers are of the official file only, which its sha256 tells. (lm-eval's `wikitext` task, word
//     perplexity, is something else.)
// c4: the paper's 256 slices, (document, token offset) pairs in data/paper/c4_windows.csv, where the whole first validation shard is
//     there, which its number of documents and their lengths at these places tell; slices shorter than 2048 happen (the pairs were
//     drawn with another tokenizer), so all slices are concatenated and cut anew, into fewer windows. Where it is not, windows are
//     drawn as the paper's code does: seed 0, 256 times a random document that has more than 2048 tokens, and a random offset. Which
//     of the two it was is part of the result.
// calibration: as the paper's code draws them, from C4's train split (or WikiText-2's); its first shard is known by its number of
//     documents and by the first of them.
// AWQ's calibration: 128 of C4's train documents that have at most 512 tokens each, concatenated and cut into windows of 512.
//
// Source: the paper's published code (Efficient-ML/Qwen3-Quantization) and IST-DASLab/gptq, from which it descends.
//
// defines: TextSet, wikitext_text, wikitext2_set, c4_set, calibration_set,
//          awq_calibration_set, window_mean, perplexity
#pragma once
#include <charconv>
#include <cmath>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>
#include "../data/csv.h"
#include "../data/file.h"
#include "../data/json.h"
#include "../data/lines.h"
#include "../data/numpy_random.h"
#include "../data/random.h"
#include "../data/sha256.h"
#include "../tokenizer/bpe.h"
// defines: python_strip
#include "../tokenizer/python_string.h"
#include "estimate.h"

struct TextSet {
    std::string name;         // "wikitext2"
    std::string variant;      // which windows these are, in words
    bool official = false;    // the text that the paper's numbers are of
    std::vector<int> tokens;  // [n_windows * window]
    int window = 2048;
    size_t n_windows = 0, tokens_in_text = 0;
};

// What a document says: the "text" field of line `i`.
inline std::string document_text(const LineFile& file, size_t i) { return json_string(file.json(i), "text", file.name(i)); }

// The rows of a WikiText file, joined with "\n\n".
inline std::string wikitext_text(const std::string& path) {
    MappedFile file(path);
    std::string text;
    const std::string_view all = utf8_text(file);
    for (size_t at = 0; at < all.size();) {
        const size_t next = std::min(all.find('\n', at), all.size() - 1) + 1;
        if (at > 0) text += "\n\n";
        const std::string_view row = all.substr(at, next - at);
        if (!is_blank(row)) text += row;
        at = next;
    }
    return text;
}

// `instead`: what else may help.
inline void require_file(const std::string& path, const char* set, const char* instead = "") {
    if (!file_exists(path))
        fail("%s: expected the %s texts, found no such file. HINT: scripts/download.sh %s (all-data: every set), or --data DIR%s", path.c_str(),
             set, set, instead);
}

// Cuts set.tokens, of the file `path`, into whole windows and keeps the first `limit` of them, 0: all. What is left over is dropped.
inline void cut_windows(TextSet& set, size_t limit, const std::string& path) {
    set.tokens_in_text = set.tokens.size();
    set.n_windows = set.tokens.size() / set.window;
    if (set.n_windows == 0)
        fail("%s: %zu tokens are less than one window of %d. HINT: the whole set (scripts/download.sh %s)", path.c_str(), set.tokens.size(),
             set.window, set.name.c_str());
    if (limit && limit < set.n_windows) set.n_windows = limit, set.variant += format(", first %zu windows only", limit);
    set.tokens.resize(set.n_windows * set.window);
}

// Of wiki.test.raw in wikitext-2-raw-v1.zip, byte for byte.
static constexpr const char* WIKITEXT2_TEST_SHA256 = "173c87a53759e0201f33e0ccf978e510c2042d7f2cb78229d9a50d79b9e7dd08";

inline bool has_sha256(const std::string& path, const std::string& sha256) {
    MappedFile file(path);
    return sha256_hex(file.data, file.size) == sha256;
}

// `limit` > 0 keeps only so many windows.
inline TextSet wikitext2_set(const Tokenizer& tokenizer, const std::string& data_dir, size_t limit) {
    TextSet set;
    set.name = "wikitext2";
    set.variant = "test, joined with two newlines";
    const std::string path = data_dir + "/wikitext2/wiki.test.raw";
    require_file(path, "wikitext2");
    set.official = has_sha256(path, WIKITEXT2_TEST_SHA256);
    if (!set.official) set.variant += ", not the official wiki.test.raw";
    set.tokens = tokenizer_encode(tokenizer, wikitext_text(path));
    cut_windows(set, limit, path);
    return set;
}

// Draws `n` windows of `length` tokens from random documents that are longer than that, as the paper's code does with C4 (the GPTQ
// repository's takes those of just that length too, at which its draw of an offset ends in an error).
// Every draw comes from CPython's generator, so that the same seed gives the same windows. `hint`: what helps if all are shorter.
inline std::vector<int> draw_windows(const Tokenizer& tokenizer, const LineFile& documents, int n, int length, int seed, const char* hint) {
    PythonRandom random(seed);
    std::vector<int> tokens;
    std::unordered_map<size_t, size_t> too_short;  // document -> its tokens
    const size_t N = documents.count();
    if (N == 0) fail("%s: expected documents, found an empty file", documents.file.path.c_str());
    for (int k = 0; k < n;) {
        const size_t i = (size_t)random.randint(0, (long long)N - 1);
        if (too_short.count(i)) continue;
        std::vector<int> ids = tokenizer_encode(tokenizer, document_text(documents, i));
        if (ids.size() <= (size_t)length) {
            too_short[i] = ids.size();
            if (too_short.size() == N)
                fail("%s: none of the %zu documents has more than %d tokens. HINT: %s", documents.file.path.c_str(), N, length, hint);
            continue;
        }
        const size_t offset = (size_t)random.randint(0, (long long)ids.size() - length - 1);
        tokens.insert(tokens.end(), ids.begin() + offset, ids.begin() + offset + length);
        k++;
    }
    return tokens;
}

// In shard 0 of each split; the paper's windows index the validation shard. Other shards have as many documents, or nearly.
static constexpr size_t C4_VALIDATION_DOCUMENTS = 45576, C4_TRAIN_DOCUMENTS = 356317;
// Of the text of train's first document ("Beginners BBQ Class Taking Place in Missoula!", as in the data set's card).
static constexpr const char* C4_TRAIN_FIRST_SHA256 = "817d25ec0005bddc46001d4d492a74ea5fe3afa6e8bd91d9f8a0a576fc5d2c9e";

inline bool is_official_train(const LineFile& documents) {
    if (documents.count() != C4_TRAIN_DOCUMENTS) return false;
    const std::string first = document_text(documents, 0);
    return sha256_hex(first.data(), first.size()) == C4_TRAIN_FIRST_SHA256;
}

// "370 train documents, not the official 356317"
inline std::string train_variant(const LineFile& documents, bool official) {
    return format("%zu train documents", documents.count()) +
           (official                                  ? ""
            : documents.count() == C4_TRAIN_DOCUMENTS ? ", not those of the official first shard"
                                                      : format(", not the official %zu", C4_TRAIN_DOCUMENTS));
}

// (document, token offset) of each window of the paper's.
inline std::vector<std::pair<size_t, size_t>> paper_windows(const std::string& csv) {
    std::vector<std::pair<size_t, size_t>> windows;
    std::vector<size_t> lines;
    const std::vector<std::vector<std::string>> rows = csv_parse_file(csv, &lines);
    for (size_t r = 1; r < rows.size(); r++) {
        auto number = [&](size_t field) {
            size_t x = 0;
            const std::string text = field < rows[r].size() && rows[r].size() == 2 ? rows[r][field] : "";
            const auto parsed = std::from_chars(text.data(), text.data() + text.size(), x);
            if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size())
                fail("%s:%zu: expected two numbers, document,token_offset", csv.c_str(), lines[r]);
            return x;
        };
        windows.push_back({number(0), number(1)});
    }
    return windows;
}

inline TextSet c4_set(const Tokenizer& tokenizer, const std::string& data_dir, const std::string& windows_csv, size_t limit) {
    TextSet set;
    set.name = "c4";
    const std::string path = data_dir + "/c4/validation.jsonl";
    require_file(path, "c4");
    LineFile documents(path);
    const char* not_the_papers = "not the paper's";
    if (documents.count() == C4_VALIDATION_DOCUMENTS) {
        set.variant = "the paper's 256 slices";
        const std::vector<std::pair<size_t, size_t>> windows = paper_windows(windows_csv);
        for (const auto& [document, offset] : windows) {
            std::vector<int> ids = tokenizer_encode(tokenizer, document_text(documents, document));
            const size_t first = std::min(offset, ids.size()), last = std::min(offset + set.window, ids.size());
            set.tokens.insert(set.tokens.end(), ids.begin() + first, ids.begin() + last);
        }
        // The paper's documents are long: by any tokenizer most of a slice is there. Of 35 documents of another shard one is as long.
        set.official = set.tokens.size() >= windows.size() * set.window / 4;
        if (!set.official) not_the_papers = "not the paper's, whose windows are of another shard";
    }
    if (!set.official) {
        const int n = limit ? (int)std::min<size_t>(256, limit) : 256;  // the first of the 256
        set.variant = format("%d windows drawn with seed 0 from %zu documents, %s", n, documents.count(), not_the_papers);
        set.tokens = draw_windows(tokenizer, documents, n, set.window, 0, "the whole set (scripts/download.sh c4)");
    }
    cut_windows(set, limit, path);
    return set;
}

// `name` is c4 or wikitext2; n windows of `length` tokens of its train split.
inline TextSet calibration_set(const Tokenizer& tokenizer, const std::string& data_dir, const std::string& name, int n, int length,
                               int seed) {
    TextSet set;
    set.name = name;
    set.window = length;
    const std::string path = data_dir + (name == "c4" ? "/c4/train.jsonl" : "/wikitext2/wiki.train.raw");
    if (name == "c4") {
        require_file(path, "c4");
        LineFile documents(path);
        set.official = is_official_train(documents);
        set.variant = train_variant(documents, set.official);
        set.tokens = draw_windows(tokenizer, documents, n, length, seed, "a smaller -l, or the whole set (scripts/download.sh c4)");
    } else {
        require_file(path, "wikitext2", ", or -c c4, the only calibration texts that the bundled model has");
        set.variant = "train split";
        std::vector<int> ids = tokenizer_encode(tokenizer, wikitext_text(path));
        if (ids.size() <= (size_t)length) fail("%s: %zu tokens are less than a sample of %d", path.c_str(), ids.size(), length);
        PythonRandom random(seed);
        for (int k = 0; k < n; k++) {
            const size_t offset = (size_t)random.randint(0, (long long)ids.size() - length - 1);
            set.tokens.insert(set.tokens.end(), ids.begin() + offset, ids.begin() + offset + length);
        }
    }
    cut_windows(set, 0, path);
    return set;
}

// The calibration windows of llm-awq's code, as the paper's authors changed it to C4: the train documents in the order of Hugging
// Face datasets' shuffle(seed), each stripped; of those that have 1 to `length` tokens the first `n`, concatenated and cut into
// windows of `length`, what remains being dropped. So windows are fewer than documents.
inline TextSet awq_calibration_set(const Tokenizer& tokenizer, const std::string& data_dir, int n = 128, int length = 512,
                                   int seed = 42) {
    TextSet set;
    set.name = "c4";
    set.window = length;
    const std::string path = data_dir + "/c4/train.jsonl";
    require_file(path, "c4");
    LineFile documents(path);
    int taken = 0;
    for (uint32_t i : numpy_permutation((uint64_t)seed, documents.count())) {
        const std::string text = document_text(documents, i);
        const std::vector<int> ids = tokenizer_encode(tokenizer, std::string(python_strip(text)));
        if (ids.empty() || ids.size() > (size_t)length) continue;
        set.tokens.insert(set.tokens.end(), ids.begin(), ids.end());
        if (++taken == n) break;
    }
    if (taken == 0)
        fail("%s: none of the %zu documents has 1 to %d tokens. HINT: the whole set (scripts/download.sh c4)", path.c_str(),
             documents.count(), length);
    set.official = is_official_train(documents);
    set.variant = format("AWQ's rule: %d of %s, each of at most %d tokens", taken, train_variant(documents, set.official).c_str(), length);
    cut_windows(set, 0, path);
    return set;
}

// Mean over windows of each window's mean, and its standard error; values [n_windows * k], window after window.
inline Estimate window_mean(const std::vector<float>& values, size_t n_windows) {
    if (n_windows == 0) fail("expected windows to take the mean over, found none");
    const size_t k = values.size() / n_windows;
    std::vector<double> windows(n_windows);
    for (size_t w = 0; w < n_windows; w++) {
        double sum = 0;
        for (size_t i = 0; i < k; i++) sum += values[w * k + i];
        windows[w] = sum / k;
    }
    return mean_estimate(windows);
}

// logprobs [n_windows * (window - 1)]: of every token of a window but its first, in order.
inline Estimate perplexity(const std::vector<float>& logprobs, size_t n_windows, int window) {
    if (logprobs.size() != n_windows * (size_t)(window - 1))
        fail("perplexity: expected %zu log-probabilities, found %zu", n_windows * (size_t)(window - 1), logprobs.size());
    const Estimate loss = window_mean(logprobs, n_windows);
    const double ppl = std::exp(-loss.value);
    return {ppl, ppl * loss.stderr_, n_windows};
}
