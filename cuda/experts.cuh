// experts.cuh: a mixture of experts: which rows of its inputs go to which expert, and how the experts' outputs come together.
//
// Of a token's E router logits come probabilities p = softmax(logits); it goes to the K experts with the largest p (of equal ones to
// the first), with the weight p, or p / (sum of the K p's) where the model says so, rounded to floatX. Its output is
//     y = sum over its experts, in ascending order, of weight * expert's output,
// each product and each sum rounded to floatX, as transformers adds them up (modeling_qwen3_moe.py).
//
// The rows of one expert must lie together for a product, so the T K pairs (token, expert) are sorted by expert, tokens ascending: a
// counting sort, one block an expert. A pair's place in that order is its row from there on.
//
// symbols: T tokens, E experts, K experts of a token, C width of a row
// defines: MOST_EXPERTS, MOST_EXPERTS_OF_A_TOKEN, Routing, routing_bytes, route, rows_of_first_tokens, gather_routed, add_routed
#pragma once
#include <cfloat>
#include <vector>
#include "device.cuh"

static constexpr int MOST_EXPERTS = 1024, MOST_EXPERTS_OF_A_TOKEN = 64;

// One block a token. A logit that is NaN or +Inf, or none that is finite, gives the token to the first K experts, with NaN for weights.
KERNEL route_kernel(int* experts /*[T, K] ascending*/, floatX* weights /*[T, K]*/, const floatX* logits /*[T, E]*/, int E, int K,
                    bool renormalize) {
    SHARED float p[MOST_EXPERTS], value[MOST_EXPERTS_OF_A_TOKEN];
    const floatX* row = logits + (size_t)blockIdx.x * E;
    float most = -INFINITY, sum = 0, total = 0;
    for (int e = threadIdx.x; e < E; e += blockDim.x) most = to_float(row[e]) > most ? to_float(row[e]) : most;
    most = block_max(most);
    for (int e = threadIdx.x; e < E; e += blockDim.x) sum += exp_float(to_float(row[e]) - most);
    sum = block_sum(sum);
    const bool sound = sum <= FLT_MAX;
    for (int e = threadIdx.x; e < E; e += blockDim.x) p[e] = sound ? exp_float(to_float(row[e]) - most) / sum : 0;
    block_sync();
    int* chosen = experts + (size_t)blockIdx.x * K;
    for (int k = 0; k < K; k++) {
        float best = -1, first = (float)E;
        for (int e = threadIdx.x; e < E; e += blockDim.x) best = p[e] > best ? p[e] : best;
        best = block_max(best);
        for (int e = threadIdx.x; e < E; e += blockDim.x)
            if (p[e] == best && (float)e < first) first = (float)e;
        first = block_min(first);
        total += best;
        if (threadIdx.x == 0) {
            p[(int)first] = -1;  // taken
            int at = k;
            for (; at > 0 && chosen[at - 1] > (int)first; at--) chosen[at] = chosen[at - 1], value[at] = value[at - 1];
            chosen[at] = (int)first, value[at] = best;
        }
        block_sync();
    }
    for (int k = threadIdx.x; k < K; k += blockDim.x)
        weights[(size_t)blockIdx.x * K + k] = to_floatX(!sound ? NAN : renormalize ? value[k] / total : value[k]);
}

// One block an expert.
KERNEL expert_counts_kernel(int* counts /*[E]*/, const int* experts /*[T K]*/, int n) {
    int count = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) count += experts[i] == (int)blockIdx.x ? 1 : 0;
    count = block_sum(count);
    if (threadIdx.x == 0) counts[blockIdx.x] = count;
}

// One block an expert, of at most 256 threads: each counts a stretch of the pairs, and writes behind those of the threads before it.
KERNEL expert_places_kernel(int* places /*[T K]*/, int* tokens /*[T K]*/, const int* experts /*[T K]*/, const int* first /*[E]*/,
                            int n, int K) {
    SHARED int count[256];
    const int stretch = (n + (int)blockDim.x - 1) / (int)blockDim.x, start = threadIdx.x * stretch;
    const int end = start + stretch < n ? start + stretch : n, e = (int)blockIdx.x;
    int mine = 0;
    for (int i = start; i < end; i++) mine += experts[i] == e ? 1 : 0;
    count[threadIdx.x] = mine;
    block_sync();
    int place = first[e];
    for (int t = 0; t < (int)threadIdx.x; t++) place += count[t];
    for (int i = start; i < end; i++)
        if (experts[i] == e) {
            places[i] = place, tokens[place] = i / K;
            place++;
        }
}

KERNEL gather_routed_kernel(floatX* out /*[n, C]*/, const floatX* x /*[T, C]*/, const int* tokens /*[n]*/, int C) {
    const size_t from = (size_t)tokens[blockIdx.x] * C, to = (size_t)blockIdx.x * C;
    for (int i = threadIdx.x; i < C; i += blockDim.x) out[to + i] = x[from + i];
}

// x += the weighted sum of the experts' outputs y; one block a token.
KERNEL add_routed_kernel(floatX* x /*[T, C]*/, const floatX* y /*[T K, C]*/, const int* places /*[T, K]*/,
                         const floatX* weights /*[T, K]*/, int K, int C) {
    const size_t pair = (size_t)blockIdx.x * K, row = (size_t)blockIdx.x * C;
    for (int i = threadIdx.x; i < C; i += blockDim.x) {
        float sum = 0;
        for (int k = 0; k < K; k++) {
            const float product = rounded_product(to_float(y[(size_t)places[pair + k] * C + i]), to_float(weights[pair + k]));
            sum = to_float(to_floatX(sum + to_float(to_floatX(product))));
        }
        x[row + i] = to_floatX(to_float(x[row + i]) + sum);
    }
}

// Where the tokens of a chunk go.
struct Routing {
    int T = 0, K = 0;
    Array<int> experts, places;  // [T, K] a token's experts, ascending, and its rows in the order of experts
    Array<int> tokens;           // [T K] whose each row is
    Array<floatX> weights;       // [T, K]
    std::vector<int> first;      // [E + 1] on the host: expert e has the rows first[e] .. first[e + 1] - 1
};

inline size_t routing_bytes(size_t T, int K) { return T * K * (3 * sizeof(int) + sizeof(floatX)); }

// r = the routing by these logits.
inline void route(Routing& r, const floatX* logits /*[T, E]*/, int T, int E, int K, bool renormalize) {
    const size_t n = (size_t)T * K;
    if (r.tokens.n != n) {
        r.experts = Array<int>(n, "experts of tokens"), r.places = Array<int>(n, "places of tokens");
        r.tokens = Array<int>(n, "tokens of experts"), r.weights = Array<floatX>(n, "weights of experts");
    }
    r.T = T, r.K = K;
    launch(route_kernel, T, 128, r.experts.data, r.weights.data, logits, E, K, renormalize);
    Array<int> counts(E, "experts' tokens");
    launch(expert_counts_kernel, E, 256, counts.data, r.experts.data, (int)n);
    r.first.assign(E + 1, 0);
    copy(r.first.data() + 1, counts.data, E);
    for (int e = 0; e < E; e++) r.first[e + 1] += r.first[e];
    copy(counts.data, r.first.data(), E);
    launch(expert_places_kernel, E, 256, r.places.data, r.tokens.data, r.experts.data, counts.data, (int)n, K);
}

// Of each expert's rows those of the tokens 0, length, 2 length ..: the first of each sample, where those are so long.
inline std::vector<std::vector<int>> rows_of_first_tokens(const Routing& r, int length) {
    std::vector<std::vector<int>> rows(r.first.size() - 1);
    std::vector<int> experts(r.K), places(r.K);
    for (size_t t = 0; t < (size_t)r.T; t += (size_t)length) {
        copy(experts.data(), r.experts.data + t * r.K, r.K), copy(places.data(), r.places.data + t * r.K, r.K);
        for (int k = 0; k < r.K; k++) rows[experts[k]].push_back(places[k] - r.first[experts[k]]);
    }
    return rows;
}

// The rows of x [T, C] that go to the experts first .. end - 1, in their places of out [T K, C].
inline void gather_routed(const Routing& r, floatX* out, const floatX* x, int C, int first, int end) {
    const int row = r.first[first];
    launch(gather_routed_kernel, r.first[end] - row, 256, out + (size_t)row * C, x, r.tokens.data + row, C);
}

// x [T, C] += what the experts made, y [T K, C].
inline void add_routed(const Routing& r, floatX* x, const floatX* y, int C) {
    launch(add_routed_kernel, r.T, 256, x, y, r.places.data, r.weights.data, r.K, C);
}
