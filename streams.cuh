// streams.cuh: flat arrays of tokens on their way through the layers. Calibration is a stream, and so is every set that is evaluated: its
// tokens, their activations, the segments that say which tokens see which, and the positions whose log-probabilities are asked for.
//
// shapes: T tokens, C hidden_size, V vocabulary
// defines: Chunk, Activations, Stream, CHUNK_TOKENS, stream_make_chunks, stream_of_windows, stream_of_trie, longest_chunk, residual_width,
//          stream_check, stream_embed
#pragma once
#include <string>
#include <vector>
#include "cuda/attention.cuh"
#include "cuda/experts.cuh"
#include "eval/trie.h"
#include "weights.cuh"

// A piece of a stream that is computed at once. It holds whole trees of segments, so that attention never looks outside.
struct Chunk {
    size_t start;  // in the stream
    int T;
    AttentionPlan plan;
    Array<int> positions;     // [T]
    mutable Routing routing;  // where its tokens go in the layer at hand, if that is a mixture; stage 2 sets it
};

// Activations [T, width] of a stream, on the device or, where that is too small, in page-locked host memory.
struct Activations {
    Array<floatX> data;
    int width = 0;
    // The chunk's rows on the device; `scratch` [chunk, width] holds them if they live on the host.
    floatX* fetch(const Chunk& chunk, floatX* scratch) {
        floatX* rows = data.data + chunk.start * width;
        if (data.place == Place::Device) return rows;
        copy(scratch, rows, (size_t)chunk.T * width);
        return scratch;
    }
    void store(const Chunk& chunk, const floatX* rows) {
        if (data.place == Place::Host) copy(data.data + chunk.start * width, rows, (size_t)chunk.T * width);
    }
};

struct Stream {
    std::string name;
    std::vector<int> tokens;
    std::vector<Segment> segments;  // contiguous; a parent comes before its children
    std::vector<Target> targets;    // in the order of rows
    std::vector<Chunk> chunks;
    Activations x;                        // the residual stream, [T, C]
    bool rest = false;                    // each chunk's [T, C] of it is followed by as many rests, which rounding left of their sums
    Activations in;                       // calibration only: inputs of the current stage, each chunk's [rows, I] in room for [T, widest input]
    bool bf16_logits = false;             // --bf16-scores: logits are rounded before anything is made of them
    std::vector<float> logits, logprobs;  // [targets]
    std::vector<float> kl, same_top;      // --kl, one a row that has targets: divergence from full precision, the same first choice
};

#ifdef __CUDACC__
static constexpr int CHUNK_TOKENS = 16384;  // fills the GPU, and the widest temporary of a 32B model stays below 2 GB
#else
static constexpr int CHUNK_TOKENS = 4096;  // packing the weights once a chunk is then lost in the product
#endif

// Cuts the stream into chunks of whole trees, at most so many tokens long unless a single tree is longer.
inline void stream_make_chunks(const Config& c, Stream& s, int chunk_tokens = CHUNK_TOKENS) {
    s.chunks.clear();
    size_t first = 0;
    while (first < s.segments.size()) {
        size_t end = first, tree = first;
        const size_t start = (size_t)s.segments[first].start;
        while (tree < s.segments.size()) {  // take one more tree
            size_t next = tree + 1;
            while (next < s.segments.size() && s.segments[next].parent >= 0) next++;
            const size_t T = (size_t)s.segments[next - 1].start + s.segments[next - 1].len - start;
            if (end > first && T > (size_t)chunk_tokens) break;
            end = tree = next;
        }
        std::vector<Segment> local(s.segments.begin() + first, s.segments.begin() + end);
        std::vector<int> positions;
        for (Segment& seg : local) {
            seg.start -= (int)start;
            if (seg.parent >= 0) seg.parent -= (int)first;
            for (int i = 0; i < seg.len; i++) positions.push_back(seg.pos + i);
        }
        Chunk chunk;
        chunk.start = start;
        chunk.T = (int)positions.size();
        chunk.plan = attention_plan(local, chunk.T, c.H / c.KV);
        chunk.positions = Array<int>(positions.size(), "positions");
        copy(chunk.positions.data, positions.data(), positions.size());
        s.chunks.push_back(std::move(chunk));
        first = end;
    }
}

// Windows of equal length, each a segment without a parent; with_targets asks for every token of a window but its first.
inline Stream stream_of_windows(const Config& c, const std::string& name, const std::vector<int>& tokens, int window,
                                bool with_targets) {
    Stream s;
    s.name = name;
    s.tokens = tokens;
    for (size_t start = 0; start + window <= tokens.size(); start += window) {
        s.segments.push_back({(int)start, window, -1, 0});
        for (int t = 0; with_targets && t + 1 < window; t++) s.targets.push_back({start + t, tokens[start + t + 1]});
    }
    stream_make_chunks(c, s);
    return s;
}

// Takes the trie's tokens, segments and targets.
inline Stream stream_of_trie(const Config& c, const std::string& name, Trie& trie) {
    Stream s;
    s.name = name;
    s.tokens = std::move(trie.tokens), s.segments = std::move(trie.segments), s.targets = std::move(trie.targets);
    stream_make_chunks(c, s);
    return s;
}

inline size_t longest_chunk(const std::vector<Stream>& streams) {
    size_t T = 0;
    for (const Stream& s : streams)
        for (const Chunk& c : s.chunks) T = std::max(T, (size_t)c.T);
    return T;
}

// Values of a token's residual stream, of the widest of them.
inline int residual_width(const Config& c, const std::vector<Stream>& streams) {
    return std::any_of(streams.begin(), streams.end(), [](const Stream& s) { return s.rest; }) ? 2 * c.C : c.C;
}

// Every id must be a row of the embeddings, and of the head where its logit is read.
inline void stream_check(const Stream& s, int V) {
    auto check = [&](int id, const char* what, size_t i) {
        if (id < 0 || id >= V)
            fail("%s: %s %zu has id %d, outside of the model's vocabulary of %d. HINT: the tokenizer belongs to another model", s.name.c_str(),
                 what, i, id, V);
    };
    for (size_t i = 0; i < s.tokens.size(); i++) check(s.tokens[i], "token", i);
    for (size_t i = 0; i < s.targets.size(); i++) check(s.targets[i].token, "scored token", i);
}

// x = the embeddings of the stream's tokens.
inline void stream_embed(const Model& m, Stream& s) {
    const size_t C = m.config.C;
    stream_check(s, m.config.V);
    const std::string name = "model.embed_tokens.weight";
    const TensorView* table = m.random ? nullptr : &checkpoint_get(m.checkpoint, name, {(size_t)m.config.V, C});
    Array<floatX> rows(CHUNK_TOKENS * C, "embedding rows", m.random ? Place::Device : Place::Host);
    Array<int> ids(CHUNK_TOKENS, "token ids");
    for (size_t start = 0; start < s.tokens.size(); start += CHUNK_TOKENS) {
        const size_t n = std::min((size_t)CHUNK_TOKENS, s.tokens.size() - start);
        if (m.random) {
            copy(ids.data, s.tokens.data() + start, n);
            launch(random_rows_kernel, (unsigned)n, 256, rows.data, ids.data, random_key(name, m.seed), (int)C);
        } else {
            for (size_t i = 0; i < n; i++) checkpoint_values(*table, s.tokens[start + i] * C, C, rows.data + i * C);
        }
        copy(s.x.data.data + start * C, rows.data, n * C);
    }
}
