// trie.h: requests for log-probabilities, merged into tries of token segments.
//
// A request asks for the log-probability of each token of a continuation after its context. Run by itself it costs one forward
// pass over context + continuation without the last token. Requests share long beginnings (five shots, the context of four
// endings), and identical beginnings have identical activations, so every shared token is computed once: the requests are
// sorted, each adds to the trie what it does not share with the one before it, and a token attends to its ancestors. This is
// exact. A tree may not outgrow what is computed at once, so where one is full the next begins, with the shared beginning again.
//
// defines: Request, input_size, encode_request, Target, Trie, trie_build
#pragma once
#include <algorithm>
#include <string>
#include <vector>
// defines: Segment
#include "../cuda/attention.cuh"
#include "../tokenizer/bpe.h"
// defines: python_rstrip_size
#include "../tokenizer/python_string.h"

struct Request {
    std::vector<int> tokens;  // the context's, then the continuation's
    int n_context;            // at least 1, and fewer than tokens
};

inline size_t input_size(const Request& r) { return r.tokens.size() - 1; }  // the last token is only predicted

// Context and continuation as lm-evaluation-harness splits them: white space at the context's end goes to the continuation; the
// context is tokenized alone, and the continuation's tokens are those of the whole text from that many on. (Where a token of the
// whole text reaches across the border, the two do not fit together. The harness doesn't look, and no official set has such a border.)
inline Request encode_request(const Tokenizer& tokenizer, const std::string& context, const std::string& continuation) {
    Request r;
    r.tokens = tokenizer_encode(tokenizer, context + continuation);
    const std::vector<int> alone = tokenizer_encode(tokenizer, context.substr(0, python_rstrip_size(context)));
    r.n_context = (int)alone.size();
    std::copy_n(alone.begin(), std::min(alone.size(), r.tokens.size()), r.tokens.begin());
    if (r.n_context < 1 || r.n_context >= (int)r.tokens.size())
        fail("the context %s has %d of the %zu tokens of context and continuation, expected at least one and at least one fewer",
             json_quote(context.substr(0, 80)).c_str(), r.n_context, r.tokens.size());
    return r;
}

// A log-probability that is asked for: of `token`, after the token number `row` of a stream.
struct Target {
    size_t row;
    int token;
};

struct Trie {
    std::vector<int> tokens;
    std::vector<Segment> segments;         // contiguous; a parent comes before its children
    std::vector<Target> targets;           // each once, in the order of rows
    std::vector<std::vector<int>> wanted;  // for every request: the targets of its continuation's tokens, in order
    size_t tokens_asked = 0;               // what separate sequences would cost, identical ones counted once
};

// Segments from tokens whose parents are known. tokens lie in depth-first order, so a token that has a sibling, or whose parent is
// not the token before it, begins a segment.
inline std::vector<Segment> trie_segments(const std::vector<int>& parent /*[T], -1: none*/) {
    const int T = (int)parent.size();
    std::vector<int> children(T), segment_of(T), depth(T);
    for (int t = 0; t < T; t++)
        if (parent[t] >= 0) children[parent[t]]++;
    std::vector<Segment> segments;
    for (int t = 0; t < T; t++) {
        const int p = parent[t];
        depth[t] = p < 0 ? 0 : depth[p] + 1;
        if (p < 0 || p != t - 1 || children[p] > 1) segments.push_back({t, 0, p < 0 ? -1 : segment_of[p], depth[t]});
        segments.back().len++;
        segment_of[t] = (int)segments.size() - 1;
    }
    return segments;
}

// One trie for all requests, in trees of at most `most` tokens (more only where a single request is longer).
inline Trie trie_build(const std::vector<Request>& requests, size_t most) {
    std::vector<size_t> order(requests.size());
    for (size_t i = 0; i < order.size(); i++) order[i] = i;
    auto begin = [&](size_t i) { return requests[i].tokens.begin(); };
    auto end = [&](size_t i) { return requests[i].tokens.begin() + input_size(requests[i]); };
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return std::lexicographical_compare(begin(a), end(a), begin(b), end(b)); });

    struct Wanted {
        Target target;
        size_t request, index;
    };
    Trie trie;
    std::vector<Wanted> wanted;
    std::vector<int> parent, path;  // path: the tokens of the request before, as numbers in trie.tokens
    size_t tree = 0;                // where the current tree begins
    for (size_t k = 0; k < order.size(); k++) {
        const Request& r = requests[order[k]];
        const size_t n = input_size(r);
        size_t shared = 0;
        while (shared < std::min(n, path.size()) && trie.tokens[path[shared]] == r.tokens[shared]) shared++;
        if (shared < n || shared < path.size()) trie.tokens_asked += n;
        if (trie.tokens.size() - tree + n - shared > most) shared = 0;
        if (shared == 0) tree = trie.tokens.size();
        path.resize(shared);
        for (size_t i = shared; i < n; i++) {
            parent.push_back(path.empty() ? -1 : path.back());
            path.push_back((int)trie.tokens.size());
            trie.tokens.push_back(r.tokens[i]);
        }
        for (size_t i = r.n_context; i <= n; i++) wanted.push_back({{(size_t)path[i - 1], r.tokens[i]}, order[k], i - r.n_context});
    }
    trie.segments = trie_segments(parent);

    std::sort(wanted.begin(), wanted.end(), [](const Wanted& a, const Wanted& b) {
        return a.target.row != b.target.row ? a.target.row < b.target.row : a.target.token < b.target.token;
    });
    for (const Request& r : requests) trie.wanted.emplace_back(r.tokens.size() - r.n_context);
    for (const Wanted& w : wanted) {
        if (trie.targets.empty() || trie.targets.back().row != w.target.row || trie.targets.back().token != w.target.token)
            trie.targets.push_back(w.target);
        trie.wanted[w.request][w.index] = (int)trie.targets.size() - 1;
    }
    return trie;
}
